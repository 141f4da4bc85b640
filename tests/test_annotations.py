"""Types and layout that the tools check: nothing is left out in silence."""

import ast
import pathlib
import re
import tomllib

ROOT = pathlib.Path(__file__).parents[1]
CHECKED = ("fourm_jax", "experiments")  # every function of three parameters is annotated there
EVERYTHING = (*CHECKED, "configs", "tests")

# Tables that the formatter would spread over pages.
MOST_HAND_LAID = 20


def files(folders: tuple[str, ...]) -> list[pathlib.Path]:
    """Every Python file of these folders, sorted."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def unannotated(source: str) -> list[str]:
    """Names of the functions of three or more parameters that lack an annotation."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        given = node.args
        own = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
        own = [arg for arg in own if arg is not None and arg.arg not in ("self", "cls")]
        complete = node.returns and all(arg.annotation for arg in own)
        if len(own) >= 3 and not complete:
            found.append(node.name)
    return found


def test_a_parameter_or_a_return_without_annotation_is_found():
    assert unannotated("def f(a: int, b: int, c): ...") == ["f"]
    assert unannotated("def f(a: int, *, b: int, c: int): ...") == ["f"]
    assert unannotated("def f(a: int, *args, **kwargs: int) -> int: ...") == ["f"]
    assert unannotated("def f(a: int, b: int, c: int) -> int: ...") == []
    assert unannotated("class A:\n  def f(self, a, b): ...") == []  # two parameters


def test_functions_of_three_parameters_are_annotated():
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in files(CHECKED)
        for name in unannotated(path.read_text())
    ]
    assert not found, "\n".join(found)


def test_few_places_are_laid_out_by_hand():
    comment = re.compile(r"#\s*fmt:\s*(skip|off)")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in [*files(EVERYTHING), ROOT / "setup.py"]
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if comment.search(line)
    ]
    assert len(found) <= MOST_HAND_LAID, "\n".join(found)


def test_mypy_passes_over_no_room_in_silence():
    mypy = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]
    assert set(mypy["files"]) == {"fourm_jax", "experiments", "configs"}
    skipped = {
        module.removesuffix(".*")
        for override in mypy["overrides"]
        if set(override) - {"module", "ignore_missing_imports"}
        for module in override["module"]
    }
    assert not skipped
    assert not mypy.get("exclude") and not mypy.get("disable_error_code")
    blanket = [
        str(path.relative_to(ROOT))
        for path in files(EVERYTHING)
        if re.search(r"#\s*(type: ignore(?!\[)|mypy: )", path.read_text())
    ]
    assert not blanket
