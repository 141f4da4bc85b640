"""What all commands share: paths and configs on the command line."""

import pathlib
import re
import resource
import warnings

import pytest
from absl import flags

from experiments import cli
from fourm_jax.generate.prompts import ConditionWarning

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"


def test_our_own_warnings_are_notes_of_one_line_and_those_of_libraries_say_where(monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    cli._print_notes()
    said = [
        warnings.formatwarning("turned", category, "some/file.py", 7, "a = 1")
        for category in (ConditionWarning, DeprecationWarning)
    ]
    assert said == ["note: turned\n", "some/file.py:7: DeprecationWarning: turned\n  a = 1\n"]


def test_a_short_name_is_a_config_that_comes_with_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scenes = f"{CONFIGS / 'scenes.py'}"
    assert cli.find_config("scenes") == scenes
    assert cli.find_config("scenes:size=nano,runlocal") == f"{scenes}:size=nano,runlocal"
    assert cli.find_config("configs/scenes.py:size=nano") == f"{scenes}:size=nano"


def test_a_file_of_the_current_folder_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "scenes.py").write_text("")
    assert cli.find_config("configs/scenes.py:runlocal") == "configs/scenes.py:runlocal"


def test_both_spellings_of_the_flag_are_located(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = f"{CONFIGS / 'scenes.py'}:runlocal"
    located = cli.locate_configs(["--config=scenes:runlocal", "--config.seed=1"])
    assert located == [f"--config={expected}", "--config.seed=1"]
    assert cli.locate_configs(["--config", "scenes:runlocal"]) == ["--config", expected]


def test_a_config_without_a_name_is_refused_and_takes_no_other_flag_for_one():
    with pytest.raises(ValueError, match="--config= names no config; allowed: "):
        cli.locate_configs(["--config=", "--workdir=runs/x"])


def test_an_unknown_config_names_the_nearest():
    with pytest.raises(ValueError, match="unknown config 'data/scene'; did you mean"):
        cli.find_config("data/scene")


@pytest.fixture
def path_flag():
    holder = cli.define_path("path_of_this_test", None, "A path.")
    yield holder
    delattr(flags.FLAGS, "path_of_this_test")


def test_a_path_flag_expands_the_home_folder(path_flag, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    flags.FLAGS(["test", "--path_of_this_test=~/runs/one"])
    assert str(path_flag.value) == "/home/somebody/runs/one"


def test_an_empty_path_is_refused_with_the_flags_name(path_flag):
    with pytest.raises(
        flags.IllegalFlagValueError, match="--path_of_this_test=: the path is empty"
    ):
        flags.FLAGS(["test", "--path_of_this_test="])


@pytest.mark.parametrize(("repeatable", "twice"), [(False, ["a=1,a=2"]), (True, ["a=1", "a=2"])])
def test_a_list_that_holds_a_name_twice_is_refused_with_the_name(repeatable, twice):
    holder = cli.define_names("names_of_this_test", [], "Names.", repeatable=repeatable)
    try:
        flags.FLAGS(["test", "--names_of_this_test=a=1"])
        assert holder.value == ["a=1"]
        with pytest.raises(flags.IllegalFlagValueError, match=r"names_of.*'a' is given twice"):
            flags.FLAGS(["test", *(f"--names_of_this_test={value}" for value in twice)])
    finally:
        delattr(flags.FLAGS, "names_of_this_test")


def test_a_remote_path_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(cli.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="gs:// needs gcsfs: pip install gcsfs"):
        cli._PathParser().parse("gs://bucket/run")


@pytest.mark.parametrize(
    ("limits", "refused", "asked"),
    [
        ((1_024, 1_048_576), 0, [(65_536, 1_048_576)]),
        ((1_024, 4_096), 0, [(4_096, 4_096)]),
        ((256, resource.RLIM_INFINITY), 20_000, [(10_240, resource.RLIM_INFINITY)]),  # macOS
        ((100_000, 100_000), 0, []),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), 0, []),
    ],
)
def test_a_command_may_open_as_many_files_as_the_system_allows(limits, refused, asked, monkeypatch):
    given = []

    def set_limits(which, wanted):
        if refused and wanted[0] > refused:
            raise ValueError("current limit exceeds maximum limit")
        given.append(wanted)

    monkeypatch.setattr(cli.resource, "getrlimit", lambda which: limits)
    monkeypatch.setattr(cli.resource, "setrlimit", set_limits)
    cli.allow_open_files()
    assert given == asked


def test_every_flag_that_lists_names_takes_each_once():
    """Lists of numbers, and of guides, of which a modality may have several, are others."""
    lists = re.compile(r"flags\.DEFINE_(?:list|spaceseplist|multi_string)\(\s*\"(\w+)\"")
    found = {
        (path.stem, name)
        for path in pathlib.Path(cli.__file__).parent.rglob("*.py")
        for name in lists.findall(path.read_text())
    }
    assert found == {
        ("generate", "conditions"),  # refused with the advice to weigh them
        ("generate", "guide"),
        ("generate", "shift"),
        ("train", "profile_steps"),
    }
