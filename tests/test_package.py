"""The package from outside: its face, its version, the command `fourm`, wrong flags."""

import pathlib
import subprocess
import sys

import pytest

import fourm_jax
from tests.stress import children

ROOT = pathlib.Path(__file__).parents[1]


def run(*arguments: str, folder: pathlib.Path = ROOT) -> subprocess.CompletedProcess:
    """A Python of its own."""
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=120
    )


def fourm(*arguments: str, folder: pathlib.Path) -> subprocess.CompletedProcess:
    """The command `fourm`, from any folder."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from fourm_jax import console; "
    return run("-c", code + "console.main()", *arguments, folder=folder)


HEAVY = ("jax", "flax", "optax", "orbax", "grain", "tensorflow", "matplotlib", "numpy", "clu")


def loaded_after(code: str) -> set[str]:
    """Which of `HEAVY`, and of our rooms, are imported once `code` has run."""
    shown = run("-c", f"{code}\nimport sys\nprint(*sys.modules)")
    assert shown.returncode == 0, shown.stderr
    names = {tuple(name.split(".")[:2]) for name in shown.stdout.split()}
    return {name[0] for name in names if name[0] in HEAVY} | {
        ".".join(name) for name in names if name[0] == "fourm_jax" and len(name) > 1
    }


def test_importing_the_package_loads_nothing_heavy():
    assert loaded_after("import fourm_jax; dir(fourm_jax)") == set()


def test_what_loads_and_generates_needs_no_training_and_no_data():
    rooms = loaded_after("import fourm_jax; fourm_jax.load, fourm_jax.Generator")
    assert not rooms & {"orbax", "grain", "tensorflow", "matplotlib", "clu"}
    assert not rooms & {"fourm_jax.train", "fourm_jax.data", "fourm_jax.masking", "fourm_jax.jobs"}


def test_the_command_that_generates_needs_no_training():
    rooms = loaded_after("import experiments.generate")
    assert not rooms & {"orbax", "tensorflow", "clu", "fourm_jax.train", "fourm_jax.labelers"}


@pytest.mark.parametrize("name", fourm_jax.__all__)
def test_every_name_of_the_table_of_contents_is_there(name):
    assert name in dir(fourm_jax)
    assert callable(getattr(fourm_jax, name)) or name == "Batch"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'lode'"):
        _ = fourm_jax.lode


def test_setup_reads_the_version_of_the_package():
    code = "import setuptools; setuptools.setup = lambda **kept: print(kept['version'])"
    shown = run("-c", f"{code}; import runpy; runpy.run_path('setup.py')")
    assert shown.stdout == f"{fourm_jax.__version__}\n", shown.stderr


def test_help_lists_every_command_with_a_line(tmp_path):
    shown = fourm("--help", folder=tmp_path).stdout
    names = {path.stem for path in (ROOT / "experiments").glob("*.py")}
    names -= {"cli", "processes", "__init__"}
    listed = dict(line.split(maxsplit=1) for line in shown.splitlines() if line.startswith("  "))
    assert set(listed) == names
    assert listed["train"].startswith("Train a trunk or a tokenizer from a config")


def test_an_unknown_command_names_the_nearest(tmp_path):
    done = fourm("trian", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: unknown command 'trian'; did you mean 'train'?")


def test_a_command_runs_by_name_from_any_folder(tmp_path):
    workdir = f"--workdir={tmp_path / 'run'}"
    done = fourm(
        "train", "--config=scenes:runlocal", workdir, "--config.optimzer.lr=1", folder=tmp_path
    )
    assert done.stderr.startswith("error: unknown config key 'optimzer.lr'; did you mean")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--config=scene", "--workdir={}/x"], "unknown config 'scene'; did you mean"),
        (["train", "--config=scenes", "--workdir="], "flag --workdir=: the path is empty"),
        (["generate", "--workdir={}/x"], "unknown flag --workdir: a model that is read is named"),
        (["generate", "--sorce=x"], "Unknown command line flag 'sorce'. Did you mean:"),
    ],
)
def test_wrong_flags_are_one_line(arguments, message, nursery, tmp_path):
    name, *flags = (argument.replace("{}", str(tmp_path)) for argument in arguments)
    refused = nursery.command(name, flags, {})
    assert refused.code() == children.ERROR
    (line,) = refused.log.strip().splitlines()
    assert line.startswith(f"error: {message}")
    assert not list(tmp_path.iterdir())
