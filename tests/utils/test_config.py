"""Config arguments, overrides by dotted key, comparison and JSON."""

import ml_collections
import pytest

from fourm_jax.utils import config as config_lib

FILE = """
import ml_collections
def get_config(arg=None):
    return ml_collections.ConfigDict({"size": arg or "", "optimizer": {"lr": 0.1}})
"""


def example():
    return ml_collections.ConfigDict(
        {
            "seed": 0,
            "names": ("a", "b"),
            "optimizer": {"lr": 0.1, "eps": 1e-8},
            "data": ({"name": "scenes", "weight": 1.0},),
        }
    ).lock()


def test_arguments_take_the_type_of_their_default():
    args = config_lib.parse_arg(
        "size=small, runlocal,steps=3", size="nano", runlocal=False, steps=1
    )
    assert args.to_dict() == {"size": "small", "runlocal": True, "steps": 3}
    assert config_lib.parse_arg(None, size="nano").size == "nano"


@pytest.mark.parametrize(
    ("arg", "message"),
    [
        ("runlocl", "unknown config argument 'runlocl'; did you mean 'runlocal'"),
        ("steps=three", "steps='three' is not of type int"),
        ("steps", "'steps' needs a value: steps="),
        ("3", "unknown config argument '3'"),
        ("steps=3,steps=3", "'steps' is given twice in 'steps=3,steps=3'"),
        ("runlocal=maybe", "runlocal='maybe', allowed: true, false"),
    ],
)
def test_wrong_arguments_are_refused(arg, message):
    with pytest.raises(ValueError, match=message):
        config_lib.parse_arg(arg, runlocal=False, steps=1)


def test_an_override_changes_a_copy_and_locks_it():
    config = example()
    changed = config_lib.override(config, {"optimizer.lr": 0.2, "data[0].weight": 2.0})
    assert (config.optimizer.lr, changed.optimizer.lr) == (0.1, 0.2)
    assert (config.data[0]["weight"], changed.data[0]["weight"]) == (1.0, 2.0)
    with pytest.raises(AttributeError):
        changed.optimizer.rl = 1.0


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("optimzer.lr", 1.0, "'optimzer.lr'; did you mean 'optimizer.lr'. Allowed there: optimi"),
        ("data[0].wieght", 2.0, r"'data\[0\].wieght'; did you mean 'data\[0\].weight'.*data\[0\]"),
        ("optimizer.lr", "high", "'optimizer.lr' = 'high'"),
        ("zzz", 1, "unknown config key 'zzz'. Allowed there: data, names, optimizer, seed"),
    ],
)
def test_wrong_overrides_name_key_and_nearest(key, value, message):
    with pytest.raises(ValueError, match=message):
        config_lib.override(example(), {key: value})


def test_loading_runs_the_file_with_its_argument(tmp_path):
    path = tmp_path / "tiny.py"
    path.write_text(FILE)
    config = config_lib.load(f"{path}:nano", {"optimizer.lr": 0.5})
    assert (config.size, config.optimizer.lr) == ("nano", 0.5)
    with pytest.raises(ValueError, match="does not exist"):
        config_lib.load(str(tmp_path / "tny.py"))


def test_json_keeps_everything_that_comparison_needs():
    config = example()
    back = config_lib.from_json(config_lib.to_json(config))
    assert config_lib.differences(config_lib.to_json(config), config_lib.to_json(back)) == {}


def test_differences_name_full_keys_with_both_values():
    before = config_lib.to_json(example())
    after = config_lib.to_json(config_lib.override(example(), {"data.0.weight": 2.0, "seed": 1}))
    assert config_lib.differences(before, after) == {"seed": (0, 1), "data.0.weight": (1.0, 2.0)}
