"""The wheel, installed into a venv of its own and used from an empty folder (`make test-wheel`).

The venv sees the libraries of the test environment through a .pth file; the package itself and the
command `fourm` come from the wheel, which is built from the files that git knows.
"""

import pathlib
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile

import pytest

from tests import test_end_to_end

ROOT = pathlib.Path(__file__).parents[1]
pytestmark = pytest.mark.wheel


def run(command: list, folder: pathlib.Path) -> subprocess.CompletedProcess:
    environment = test_end_to_end.environment()
    environment.pop("PYTHONPATH", None)
    return subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
    )


def output(command: list, folder: pathlib.Path) -> str:
    done = run(command, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of what git would commit, so that no file of this folder slips in."""
    clone, built = tmp_path_factory.mktemp("clone"), tmp_path_factory.mktemp("wheel")
    listed = output(["git", "ls-files", "--cached", "--others", "--exclude-standard"], ROOT)
    for name in listed.splitlines():
        if (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clone / name)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    output([*pip, f"--wheel-dir={built}", clone], built)
    return next(built.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """(folder of the venv's programs, an empty folder)."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps"]
    output([*pip, "--no-index", wheel], folder)
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = pathlib.Path(output([python, "-c", code], folder).strip())
    (packages / "libraries_of_the_tests.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin", tmp_path_factory.mktemp("empty")


@pytest.fixture(scope="module")
def quickstart(installed):
    """What the quickstart prints; its run folder is "run" in the empty folder."""
    programs, empty = installed
    command = [programs / "fourm", "quickstart", "--config=quickstart:runlocal", "--workdir=run"]
    shorter = ["--config.evaluation.conditions=(('rgb',),)", "--config.evaluation.generated=()"]
    return output([*command, *shorter], empty)


def test_the_wheel_puts_one_name_into_site_packages(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"fourm_jax"}
    assert "fourm_jax/py.typed" in names
    assert "fourm_jax/_shipped/configs/scenes.py" in names
    assert "fourm_jax/_shipped/experiments/train.py" in names
    assert not [name for name in names if "parity" in name or "benchmark" in name]


def test_the_package_that_is_imported_is_the_wheels(installed):
    programs, empty = installed
    code = "import fourm_jax; print(fourm_jax.__file__, fourm_jax.__version__)"
    file, version = output([programs / "python", "-c", code], empty).split()
    assert str(programs.parent) in file
    assert output([programs / "fourm", "--version"], empty) == f"fourm_jax {version}\n"


def test_help_lists_the_commands_and_explains_each(installed):
    programs, empty = installed
    shown = output([programs / "fourm", "--help"], empty)
    for name in ("train", "quickstart", "generate", "convert_checkpoint", "tokenize_dataset"):
        assert f"\n  {name} " in shown
    assert "verify_reference" not in shown  # its cases are those of a checkout
    explained = run([programs / "fourm", "train", "--help"], empty).stdout
    assert "Train a trunk or a tokenizer from a config" in explained
    assert "--workdir" in explained


def test_the_quickstart_runs_from_a_config_by_name(quickstart, installed):
    assert "report: run/report.html" in quickstart
    assert (installed[1] / "run" / "report.html").is_file()


def test_a_finished_run_generates(quickstart, installed):
    programs, empty = installed
    command = [programs / "fourm", "generate", "--source=run", "--conditions=rgb"]
    shown = output([*command, "--targets=tok_depth,caption", "--output=made.png"], empty)
    assert "rgb -> tok_depth, caption: made.png" in shown
    assert (empty / "made.png").read_bytes().startswith(b"\x89PNG")
