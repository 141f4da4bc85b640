"""The command `fourm`: list the commands of experiments/, or run one of them.

    fourm --help
    fourm train --config=scenes:size=nano --workdir=runs/nano

A checkout has the commands in experiments/ and their configs in configs/, beside this package. A
wheel carries both inside it, in _shipped/, so that site-packages gets no name but ours.
"""

import ast
import pathlib
import runpy
import sys

import fourm_jax
from fourm_jax.utils import errors

PACKAGE = pathlib.Path(__file__).parent
SHIPPED = PACKAGE / "_shipped"  # made by setup.py, in wheels only
ROOT = SHIPPED if SHIPPED.is_dir() else PACKAGE.parent


def main() -> None:
    """Run the command that the first argument names."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("--help", "-h", "-help", "help"):
        print(overview())
    elif arguments[0] == "--version":
        print(f"fourm_jax {fourm_jax.__version__}")
    elif arguments[0] not in commands():
        sys.exit(f"error: {errors.unknown_value('command', arguments[0], commands())}")
    else:
        sys.path.insert(0, str(ROOT))
        sys.argv = [f"fourm {arguments[0]}", *arguments[1:]]
        runpy.run_module(f"experiments.{arguments[0]}", run_name="__main__", alter_sys=True)


def overview() -> str:
    """What `fourm --help` prints."""
    width = max(map(len, commands()))
    lines = [f"  {name:{width}}  {line}" for name, line in commands().items()]
    return "\n".join(
        [
            "usage: fourm COMMAND --flag=value …",
            "",
            *lines,
            "",
            "`fourm COMMAND --help` explains a command and its flags. --config takes a file or",
            "the name of a config that comes with the package: --config=scenes:size=nano.",
        ]
    )


def commands() -> dict[str, str]:
    """{name: first line of its docstring} of the files of experiments/ that have a `main`."""
    found = {}
    for path in sorted((ROOT / "experiments").glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body):
            found[path.stem] = (ast.get_docstring(tree) or "").partition("\n")[0]
    return found
