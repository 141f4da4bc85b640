# Two commands: `make quickstart` (train, generate, evaluate) and `make test`. For authors: `make lint`,
# `make format`, `make docs`, `make test-goldens`, `make test-fuzz`, `make test-stress`, `make test-kills`,
# `make test-scale`, `make test-wheel`, `make test-notebook`, `make test-howto`, `make test-demo`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKDIR ?= runs/quickstart
SEED ?= 0
GOLDENS ?= ../shared/goldens
KILLS := tests/stress/test_runs.py::test_a_run_that_is_killed_ten_times_ends_as_the_straight_one

# Dozens of tests start Python: compiled files are kept also where the environment says otherwise.
export PYTHONDONTWRITEBYTECODE =

.PHONY: quickstart test test-goldens test-fuzz test-stress test-kills test-scale test-wheel test-notebook test-howto test-demo lint format docs clean
.DELETE_ON_ERROR:

$(BIN)/python:
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'fourm_jax needs Python >= 3.11, found ' + sys.version.split()[0] + '; set PYTHON=...')"
	$(PYTHON) -m venv $(VENV)

# One stamp per set of extras: an install is repeated only when the package definition changes.
$(VENV)/.installed: setup.py | $(BIN)/python
	@echo "[install] fourm_jax into $(VENV)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.installed-test: setup.py | $(BIN)/python
	@echo "[install] fourm_jax[test] into $(VENV)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[test]"
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: setup.py | $(BIN)/python
	@echo "[install] fourm_jax[docs] into $(VENV)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[docs]"
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-demo: setup.py | $(BIN)/python
	@echo "[install] fourm_jax[test,demo,browser] into $(VENV)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[test,demo,browser]"
	@touch $@ $(VENV)/.installed $(VENV)/.installed-test

quickstart: $(VENV)/.installed
	$(BIN)/python -m experiments.quickstart --workdir=$(WORKDIR)

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest

# Recordings of the published system that do not ship; GOLDENS=folder of them.
test-goldens: $(VENV)/.installed-test
	FOURM_GOLDENS=$(GOLDENS) $(BIN)/python -m pytest -m full_set
	$(BIN)/python -m experiments.verify_reference --cases=$(GOLDENS)

# Damaged files for every reader, five minutes of them; SEED=n for others.
test-fuzz: $(VENV)/.installed-test
	$(BIN)/python -m tests.stress.fuzz --seconds=300 --seed=$(SEED)

# Runs that are killed, stopped, damaged, doubled or short of disk, a quarter of an hour of them.
test-stress: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n 2 -m 'not scale' tests/stress

# A run that is killed at 20 random moments (200 of them: `make test-scale`).
test-kills: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n 0 -m scale '$(KILLS)[0]' '$(KILLS)[1]'

# Two and four real processes on this machine, meshes, signals, other process counts, 200 kills;
# steps compiled for TPUs where libtpu is installed. Under 20 minutes.
test-scale: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n 0 -m scale tests/parallel tests/train tests/stress

test-notebook: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n 0 -m notebook tests/test_notebook.py

# Every command of the how-to pages in miniature.
test-howto: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n 0 -m howto tests/test_howto.py tests/test_howto_evaluate.py tests/test_howto_generate.py

# The page in Chromium: the system's, or that of `playwright install chromium`.
test-demo: $(VENV)/.installed-demo
	$(BIN)/python -m pytest -n 0 -m browser tests/demo

test-wheel: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n 0 -m wheel tests/test_wheel.py

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Strict: a broken link, an unknown name or a docstring that does not parse is an error.
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

clean:
	rm -rf $(VENV) .jax_cache .mypy_cache .pytest_cache .ruff_cache site
