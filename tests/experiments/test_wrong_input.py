"""What can be checked is checked before any work is done, and said in one line."""

import pathlib

import numpy as np
import pytest
from absl import flags
from etils import epath

from configs import scenes
from experiments import cli
from fourm_jax.generate import condition_files, fitting
from fourm_jax.jobs import quickstart
from fourm_jax.modalities import registry
from fourm_jax.train.optimizer import Settings
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import errors, watchdog

(CAPTION,) = registry.resolve("scenes", ("caption",))
(RGB,) = registry.resolve("scenes", ("rgb",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("raise RuntimeError('x')\n", r"wrong\.py' fails with RuntimeError: x"),
        ("def (\n", r"wrong\.py' fails with SyntaxError"),
        ("import nothing_of_this_name\n", r"wrong\.py' fails with ModuleNotFoundError"),
        ("x = 1\n", r"wrong\.py' has no function get_config"),
        ("def get_config(arg=None):\n    return None\n", "returns NoneType, expected a ConfigDict"),
        ("raise SystemExit(3)\n", r"wrong\.py' fails with SystemExit: 3"),
        ("def get_config(arg=None):\n    return {}['a']\n", r"wrong\.py' fails with KeyError: 'a'"),
    ],
)
def test_a_config_file_that_fails_is_named(content, message, tmp_path):
    (tmp_path / "wrong.py").write_text(content)
    with pytest.raises(ValueError, match=message):
        config_lib.load(str(tmp_path / "wrong.py"))


def test_a_config_without_argument_is_called_without(tmp_path):
    lines = (
        "import ml_collections\ndef get_config():\n    return ml_collections.ConfigDict({'a': 1})"
    )
    (tmp_path / "plain.py").write_text(lines)
    assert config_lib.load(str(tmp_path / "plain.py")).a == 1
    with pytest.raises(ValueError, match="fails with TypeError"):
        config_lib.load(f"{tmp_path / 'plain.py'}:size=nano")


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_an_output_that_can_be_made_leaves_nothing_behind(kind, tmp_path):
    assert cli.check_writable(epath.Path(tmp_path / "a" / "b"), kind)
    assert cli.check_writable(None, kind)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "kind"),
    [("file/below", "folder"), ("file/below/more.png", "file"), ("file", "folder")],
)
def test_an_output_below_a_file_is_refused(path, kind, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(flags.ValidationError, match=r"cannot be written: .*file: Not a directory"):
        cli.check_writable(epath.Path(tmp_path / path), kind)


def test_a_file_may_be_replaced(tmp_path):
    (tmp_path / "file.png").write_text("x")
    assert cli.check_writable(epath.Path(tmp_path / "file.png"), "file")


@pytest.mark.skipif(not pathlib.Path("/proc/self").exists(), reason="no /proc")
def test_an_output_where_nothing_can_be_made_is_refused():
    with pytest.raises(flags.ValidationError, match="cannot be written: /proc"):
        cli.check_writable(epath.Path("/proc/x"), "folder")


def test_a_long_caption_is_no_file_name():
    caption = "a red sphere left of a small blue box, " * 10
    assert condition_files.read(caption, CAPTION) == caption
    with pytest.raises(ValueError, match="no such file, and texts belong to text modalities"):
        condition_files.read("x" * 300, RGB)


def test_a_picture_is_no_caption_and_a_caption_no_picture(tmp_path):
    picture = tmp_path / "cat.png"
    picture.write_bytes(b"not read")
    with pytest.raises(ValueError, match=r"cat\.png is a file, allowed: a text"):
        condition_files.read(str(picture), CAPTION)
    with pytest.raises(ValueError, match=r"rgb=.*cat\.png: unreadable picture"):
        condition_files.read(str(picture), RGB)
    with pytest.raises(ValueError, match="no such file, and texts belong to text modalities"):
        condition_files.read("a red cone", RGB)
    with pytest.raises(ValueError, match=r"rgb=dog\.png: no such file$"):
        condition_files.read("dog.png", RGB)


def test_typed_values_are_json_or_json_files(tmp_path):
    (palette,) = registry.resolve("scenes", ("color_palette",))
    assert condition_files.read("[[255, 0, 0]]", palette) == [[255, 0, 0]]
    (tmp_path / "a.json").write_text("[[1, 2, 3]]")
    assert condition_files.read(str(tmp_path / "a.json"), palette) == [[1, 2, 3]]
    (tmp_path / "a.txt").write_text("a red cone\n")
    assert condition_files.read(str(tmp_path / "a.txt"), CAPTION) == "a red cone"
    with pytest.raises(ValueError, match="color_palette is not valid JSON"):
        condition_files.read("[[255, 0", palette)


def test_an_array_that_claims_more_than_its_file_holds_is_refused(tmp_path):
    with (tmp_path / "huge.npy").open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (2**20, 2**20)}
        np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(ValueError, match=r"huge\.npy is no whole \.npy file"):
        condition_files.read(f"{tmp_path / 'huge.npy'}", RGB)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04"])
def test_a_file_that_is_no_array_is_refused(content, tmp_path):
    (tmp_path / "some.npy").write_bytes(content)
    with pytest.raises(ValueError, match=r"some\.npy is no whole \.npy file"):
        fitting.read_array(str(tmp_path / "some.npy"))


def test_an_array_of_objects_is_not_unpickled(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"objects\.npy is no whole \.npy file"):
        fitting.read_array(str(tmp_path / "objects.npy"))


def test_an_array_comes_back_as_it_was_saved(tmp_path):
    np.save(tmp_path / "ids.npy", np.arange(6).reshape(2, 3))
    assert fitting.read_array(str(tmp_path / "ids.npy")).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_the_config_of_a_trunk_is_none_of_the_quickstart():
    with pytest.raises(ValueError, match=r"lacks the keys .*'trunk'.* none of the quickstart"):
        quickstart.check_keys(scenes.get_config("runlocal"))


@pytest.mark.parametrize("field", ["b1", "b2", "ema_decay"])
def test_averages_of_the_optimizer_lie_between_zero_and_one(field):
    with pytest.raises(ValueError, match=rf"optimizer\.{field} 2\.0, allowed: 0 <= x < 1"):
        Settings(lr=0.1, **{field: 2.0})


def test_the_lowest_rate_is_not_above_the_highest():
    with pytest.raises(ValueError, match=r"optimizer.min_lr 1.0 is above optimizer.lr 0.1"):
        Settings(lr=0.1, min_lr=1.0)


@pytest.mark.parametrize("seconds", [-1.0, float("nan")])
def test_a_run_is_not_told_to_hang_before_it_starts(seconds):
    with pytest.raises(ValueError, match=r"hang_seconds .*, allowed: numbers from 0 on"):
        watchdog.Watchdog(seconds)


def test_the_nearest_name_is_the_one_that_contains_what_was_given():
    text = errors.unknown_value("target", "depth", ["det", "tok_depth", "tok_rgb"])
    assert "did you mean 'tok_depth'?" in text
    assert "did you mean 'det'?" in errors.unknown_value("target", "dett", ["det", "tok_depth"])
