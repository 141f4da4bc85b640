"""The import direction of the architecture, checked on the syntax tree of every file."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "fourm_jax"

# The ground, which everybody may read; its files read nobody above them.
GROUND = {"utils", "modalities", "contracts"}
# What each room may import besides itself and the ground.
ALLOWED = {
    "utils": set(),
    "modalities": {"utils"},
    "contracts": set(),
    "ops": set(),
    "masking": {"ops"},
    "parallel": {"utils"},
    "scenes": {"ops"},
    "data": set(),
    "models": {"ops", "parallel"},
    "labelers": {"data"},
    "tokenizers": {"models", "ops", "parallel"},
    # Conditions are cropped by the code that crops training data.
    "generate": {"tokenizers", "models", "ops", "parallel", "data"},
    "train": {"masking", "models", "tokenizers", "data", "parallel", "ops"},
    "convert": {"tokenizers", "models", "ops"},
    # A validation loss is that of the training: under its masks, on its mesh.
    "evals": {"generate", "data", "tokenizers", "models", "masking", "parallel", "ops"},
    "console": set(),  # the command `fourm`, which finds the others by their file names
    "loading": {"generate", "convert", "tokenizers", "models"},  # what infers never trains
    "demo": {"jobs", "evals", "generate"},  # what the page is made of, without the page
    "jobs": {
        "loading", "evals", "labelers", "scenes", "train", "generate", "convert", "tokenizers",
        "models", "masking", "data", "parallel", "ops",
    },
}  # fmt: skip
# Files with a wider door: one source of records renders them.
LAZY = {"data/sources/scenes.py": {"scenes"}}

FILES = sorted(PACKAGE.rglob("*.py"))


def imports_of(path: pathlib.Path) -> list[str]:
    """Full dotted names of every module (and imported name) that a file imports."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_what_its_layer_may(path):
    layer = path.relative_to(PACKAGE).parts[0]
    layer = layer.removesuffix(".py")
    if layer == "__init__":
        return  # the package's front door re-exports from any layer
    allowed = ALLOWED[layer] | {layer} | LAZY.get(str(path.relative_to(PACKAGE)), set())
    if layer not in GROUND:
        allowed = allowed | GROUND
    for name in imports_of(path):
        parts = name.split(".")
        if parts[0] in ("configs", "experiments", "tests"):
            raise AssertionError(f"{path} imports {name}: fourm_jax may not know its users")
        if parts[0] == "fourm_jax" and len(parts) > 1:
            assert parts[1] in allowed, f"{path} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_package_never_imports_flags_or_tensorflow_at_module_level(path):
    banned = ("absl.flags", "tensorflow", "torch")
    for name in imports_of(path):
        assert not any(name == top or name.startswith(f"{top}.") for top in banned), (
            f"{path} imports {name}"
        )


def test_modalities_import_no_jax():
    for path in (PACKAGE / "modalities").rglob("*.py"):
        for name in imports_of(path):
            assert name.split(".")[0] not in ("jax", "flax"), f"{path}: {name}"


def test_importing_everything_does_not_load_tensorflow():
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in FILES
        if path.name != "__init__.py"
    ]
    code = (
        "import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_no_file_outgrows_500_lines_and_none_is_called_utils():
    for path in FILES:
        assert len(path.read_text().splitlines()) <= 500, path
        assert path.name not in ("utils.py", "helpers.py", "common.py"), path


def test_every_module_says_what_it_is_for():
    for path in FILES:
        tree = ast.parse(path.read_text())
        assert not tree.body or ast.get_docstring(tree), f"{path}: no module docstring"
