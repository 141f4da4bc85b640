"""The documents stand alone: what code and pages cite, link, name and command exists in a clone."""

import ast
import pathlib
import re

import pytest

from fourm_jax.utils import config as config_lib

ROOT = pathlib.Path(__file__).parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("fourm_jax/**/*.md")]
)
CODE = sorted(
    path
    for folder in ("fourm_jax", "configs", "experiments", "tests")
    for path in (ROOT / folder).rglob("*.py")
    if path != pathlib.Path(__file__)
)
# How earlier versions cited pages that no clone has.
NOT_IN_A_CLONE = re.compile(
    r"\bspec(ification)?s?( pages?)? \d|\bpages? \d\d|§|\bdefects? [A-Z]-\d|shared/(spec|design)"
)
NAME = r"[A-Za-z_]\w*"
ROOMS = {path.stem for path in (ROOT / "fourm_jax").iterdir() if path.suffix in ("", ".py")}
FILE_ENDINGS = (".py", ".json", ".jsonl", ".safetensors")


def relative(path: pathlib.Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(page: pathlib.Path) -> set[str]:
    """Ids of a page's headings: explicit ones, else the slug of the heading."""
    found = set()
    for heading in re.findall(r"^#+ (.*)$", without_code(page.read_text()), re.MULTILINE):
        explicit = re.search(r"\{ *#([\w-]+) *\}", heading)
        slug = re.sub(r"[^\w\s-]", "", heading).strip().lower()
        found.add(explicit.group(1) if explicit else re.sub(r"[-\s]+", "-", slug))
    return found


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def cited(text: str) -> list[tuple[str, str]]:
    """(page, anchor) of every citation."""
    return re.findall(r"(docs/[\w/-]+\.md)(?:#([\w-]+))?", text)


def commands(text: str) -> list[str]:
    """Shell commands of the code blocks and of inline code, lines joined at their backslashes."""
    blocks = re.findall(r"```(?:bash|sh)\n(.*?)```", text, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return lines + re.findall(r"`([^`\n]+)`", without_code(text))


def flags_of(module: str) -> set[str]:
    """Names of the absl flags that a module of experiments defines, read from its syntax tree."""
    text = (ROOT / f"{module.replace('.', '/')}.py").read_text()
    if "processes.define(" in text:  # flags that several commands share
        text += (ROOT / "experiments/processes.py").read_text()
    tree = ast.parse(text)
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return {
        call.args[0].value
        for call in calls
        if ast.unparse(call.func).rpartition(".")[2].lower().startswith("define_")
        and call.args
        and isinstance(call.args[0], ast.Constant)
    }


def test_the_sections_of_the_published_system_are_numbered_and_have_a_name_to_cite():
    text = without_code((ROOT / "docs/published.md").read_text())
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    numbers = [re.match(r"(\d+)\. .* \{ #[\w-]+ \}$", heading) for heading in headings]
    assert [int(match.group(1)) for match in numbers if match] == [*range(1, len(headings) + 1)]


def test_every_citation_of_a_page_names_a_section_of_it():
    for path in CODE:
        for page, anchor in cited(path.read_text()):
            assert (ROOT / page).is_file(), f"{relative(path)} cites {page}"
            assert anchor in anchors(ROOT / page), f"{relative(path)} cites {page}#{anchor}"


def test_a_citation_of_a_page_that_is_missing_would_be_found():
    assert cited("see docs/no.md#where, docs/formats.md") == [
        ("docs/no.md", "where"),
        ("docs/formats.md", ""),
    ]


def test_every_citation_of_a_paper_has_a_well_formed_number():
    for path in [*CODE, *PAGES]:
        for found in re.findall(r"arxiv[: ]+\S+", path.read_text(), re.IGNORECASE):
            text = f"{relative(path)}: {found!r}, expected arXiv:2312.06647"
            assert re.match(r"arXiv:\d{4}\.\d{4,5}(v\d+)?(?!\d)", found), text


def test_no_code_cites_what_a_clone_does_not_have():
    for path in CODE:
        found = NOT_IN_A_CLONE.search(path.read_text())
        assert not found, f"{relative(path)} cites {found and found.group()!r}"


@pytest.mark.parametrize(
    "text", ["spec 05", "spec page 03", "architecture §5", "defect K-4", "../shared/spec/05.md"]
)
def test_the_old_forms_of_citations_would_be_found(text):
    assert NOT_IN_A_CLONE.search(text)


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_every_relative_link_of_a_page_resolves(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
        if re.match(r"https?:|mailto:", target):
            continue
        file, _, anchor = target.partition("#")
        linked = (page.parent / file).resolve() if file else page
        assert linked.exists(), f"{relative(page)} links {target}"
        if anchor:
            assert anchor in anchors(linked), f"{relative(page)} links {target}"


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_every_command_of_a_page_exists_with_its_flags(page):
    for command in commands(page.read_text()):
        command = re.sub(rf"\bfourm (?={NAME})", "python -m experiments.", command)
        for module, rest in re.findall(rf"python -m (experiments(?:\.{NAME})+)([^|;&]*)", command):
            if module == "experiments.COMMAND":  # stands for any
                continue
            assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), f"{module} in {command!r}"
            known = flags_of(module)
            rest = rest.partition(" -- ")[0]  # behind it stands another command
            for flag in re.findall(r"--([\w.\[\]]+)", rest):
                name = flag.partition(".")[0]  # --config.key overrides a key of --config
                assert name in known | {"help"}, f"--{flag} of {module}; it has {sorted(known)}"


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_every_config_of_a_page_exists(page):
    for path in re.findall(r"configs/\w[\w/]*\.py", page.read_text()):
        assert "NAME" in path or (ROOT / path).is_file(), f"{relative(page)} names {path}"
    for path in re.findall(r"--config=(configs/[^\s`]+)", page.read_text()):
        assert config_lib.load(str(ROOT / path)), f"{relative(page)} names {path}"


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=relative
)
def test_every_file_and_dotted_name_of_the_package_on_a_page_exists(page):
    text = page.read_text()
    for path in re.findall(r"\b(?:fourm_jax|experiments|tests)/[\w/]+(?:\.\w+)?", text):
        assert (ROOT / path).exists(), f"{relative(page)} names {path}"
    for name in set(re.findall(rf"\bfourm_jax(?:\.{NAME})+(?![\w)])", text)):
        assert resolves(name), f"{relative(page)} names {name}"


@pytest.mark.parametrize("path", CODE, ids=relative)
def test_a_name_in_backticks_in_code_exists(path):
    """As in `masking.mixture.make_mixture`; the package's own name may be left out."""
    for name in re.findall(rf"`((?:{NAME}\.)+{NAME})(?:\([^`]*\))?`", path.read_text()):
        if name.partition(".")[0] in ROOMS and not name.endswith(FILE_ENDINGS):
            assert resolves(f"fourm_jax.{name}"), f"{relative(path)} names {name}"


def resolves(name: str) -> bool:
    """Whether a dotted name is a module, or bound in one (in a class of one), by syntax alone."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:count])
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if file.is_file():
            body, rest = ast.parse(file.read_text()).body, parts[count:]
            return all(rest[: number + 1] in bound(body) for number in range(min(len(rest), 2)))
    return False


def bound(body: list[ast.stmt]) -> list[list[str]]:
    """[name] of what a module binds, [class, name] of what its classes do."""
    found = []
    for node in body:
        if isinstance(node, ast.If | ast.With):  # imports that are lazy, or for types alone
            found += bound(node.body)
        if isinstance(node, ast.ClassDef):
            found += [[node.name, *names] for names in bound(node.body)]
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.append([node.name])
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found += [[n.id] for target in targets for n in ast.walk(target) if hasattr(n, "id")]
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found += [[(alias.asname or alias.name).partition(".")[0]] for alias in node.names]
    return found


def test_every_room_has_a_page_of_the_reference_and_a_line_on_the_map():
    package = ROOT / "fourm_jax"
    rooms = {path.name for path in package.iterdir() if (path / "__init__.py").is_file()}
    pages = {path.stem for path in (ROOT / "docs/reference").glob("*.md")} - {"index", "fourm_jax"}
    assert pages == rooms
    architecture = (ROOT / "docs/architecture.md").read_text()
    assert {room for room in rooms if f"| `{room}/` |" in architecture} == rooms
    readme = (ROOT / "README.md").read_text()
    assert {room for room in rooms - {"utils"} if f"  {room}/" in readme} == rooms - {"utils"}


def test_the_readme_fits_a_page():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_docstrings_describe_arguments_that_exist():
    wrong = []
    for path in sorted((ROOT / "fourm_jax").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                wrong += [
                    f"{relative(path)}:{node.lineno} {node.name}: {name}"
                    for name in described(ast.get_docstring(node) or "")
                    if name not in arguments(node)
                ]
    assert not wrong


def arguments(function: ast.FunctionDef) -> set[str]:
    given = function.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    return {one.arg for one in named if one}


def described(docstring: str) -> list[str]:
    """Names in the section Args; "a, b: …" describes two."""
    section = re.search(r"^Args:\n((?:  .*\n?|\n)*)", docstring, re.MULTILINE)
    items = re.findall(
        r"^  (\*{0,2}\w+(?:, \*{0,2}\w+)*):", section.group(1) if section else "", re.MULTILINE
    )
    return [name.strip(" *") for item in items for name in item.split(",")]


def test_a_described_argument_that_is_gone_would_be_found():
    docstring = "Do.\n\nArgs:\n  a, b: two.\n    more: text\n  c: one.\n\nReturns:\n  d: no.\n"
    assert described(docstring) == ["a", "b", "c"]
