"""Sweeps: what a config file lists, the commands, resuming, and the table at the end."""

import json
import pathlib
import sys

import pytest
from etils import epath

from fourm_jax.jobs import sweep
from fourm_jax.utils import config as config_lib

FILE = """
import ml_collections

def get_config(arg=None):
    return ml_collections.ConfigDict({"loss": "mod", "optimizer": {"lr": 1.0}}).lock()

def sweep():
    return POINTS
"""


@pytest.fixture
def write(tmp_path):
    def write(points):
        path = tmp_path / "config.py"
        path.write_text(FILE.replace("POINTS", repr(points)))
        return str(path), config_lib.load(str(path))

    return write


def test_points_are_named_by_what_differs(write):
    found = sweep.points(
        *write([{}, {"optimizer.lr": 0.001}, {"loss": "a/b", "optimizer.lr": 2.0}])
    )
    assert [point.name for point in found] == ["base", "lr=0.001", "loss=a_b,lr=2.0"]


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([{"optimizer.lrr": 1.0}], "unknown config key 'optimizer.lrr'"),
        ([{"loss": "mod"}, {"loss": "mod"}], "two points are called 'loss=mod'"),
    ],
)
def test_points_that_cannot_be_run_are_refused_before_any_is(write, points, message):
    with pytest.raises(ValueError, match=message):
        sweep.points(*write(points))


def test_the_points_of_the_shipped_ablation_can_be_run():
    path = str(pathlib.Path(__file__).parents[2] / "configs/ablation.py")
    found = sweep.points(path, config_lib.load(path))
    assert [point.name for point in found][:4] == ["base", "seed=1", "seed=2", "num_inputs=32"]
    assert len(found) == 15
    base = config_lib.load(path)
    for point in found:  # one that changes nothing compares the base with itself
        assert not point.changes or config_lib.differences(
            base, config_lib.override(base, point.changes)
        )
    assert sweep.measures(path)[0] == "eval/val_loss/all/loss"


def test_the_table_of_modalities_compares_seven_with_twelve():
    path = str(pathlib.Path(__file__).parents[2] / "configs/modality_table.py")
    base = config_lib.load(path)
    counts = [
        len(config_lib.override(base, point.changes).modalities.outputs)
        for point in sweep.points(path, base)
    ]
    assert counts == [11] * 3 + [7] * 3  # beside the pixels
    assert set(base.evals) == {"val_loss", "any_to_any"}


def test_a_config_without_points_says_what_is_missing(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(FILE.partition("def sweep")[0])
    with pytest.raises(ValueError, match=r"has no function sweep\(\)"):
        sweep.points(str(path), config_lib.load(str(path)))


def test_a_command_trains_one_point_in_its_own_folder(tmp_path):
    point = sweep.Point("lr=0.001", {"optimizer.lr": 0.001})
    found = sweep.command("c.py:x", point, epath.Path("runs"), {"seed": 3})
    assert found[1:] == [
        "-m",
        "experiments.train",
        "--config=c.py:x",
        "--config.optimizer.lr=0.001",
        "--config.seed=3",
        "--workdir=runs/lr=0.001",
    ]


def test_a_key_of_the_sweep_is_not_set_for_all_points_too():
    point = sweep.Point("lr=0.001", {"optimizer.lr": 0.001})
    with pytest.raises(ValueError, match=r"--config.optimizer.lr=1.0: the sweep sets this key"):
        sweep.command("c.py:x", point, epath.Path("runs"), {"optimizer.lr": 1.0})


def test_all_points_are_run_some_at_once_and_failures_are_counted(tmp_path, capsys):
    codes = {"one": 0, "two": 3, "three": 0}
    commands = {
        name: [sys.executable, "-c", f"print('{name}'); raise SystemExit({code})"]
        for name, code in codes.items()
    }
    assert sweep.run(commands, epath.Path(tmp_path), max_parallel=2) == 1
    assert [(tmp_path / name / sweep.LOG).read_text() for name in codes] == [
        f"{name}\n" for name in codes
    ]
    assert f"two ended with 3, see {tmp_path / 'two' / sweep.LOG}" in capsys.readouterr().out


def test_the_table_has_a_row_per_point_with_its_last_values(tmp_path):
    found = [sweep.Point("base", {}), sweep.Point("lr=0.1", {"optimizer.lr": 0.1})]
    for name, losses in (("base", [3.0, 2.0]), ("lr=0.1", [3.0])):
        (tmp_path / name).mkdir()
        lines = [json.dumps({"step": n + 1, "loss": loss}) for n, loss in enumerate(losses)]
        (tmp_path / name / "metrics.jsonl").write_text("\n".join(lines))
    path = sweep.write_results(found, epath.Path(tmp_path))
    assert path.read_text().splitlines() == [
        "| optimizer.lr | step | loss | eval/loss |",
        "|---|---|---|---|",
        "|  | 2 | 2.0000 |  |",
        "| 0.1 | 1 | 3.0000 |  |",
    ]
    assert (tmp_path / sweep.PLOT).read_bytes().startswith(b"\x89PNG")
    sweep.write_results(found, epath.Path(tmp_path), ["accuracy"])
    assert path.read_text().splitlines()[0] == "| optimizer.lr | step | loss | accuracy |"


def test_forty_lines_of_a_plot_can_be_told_apart():
    assert sweep.line_style(3) == {"color": "C3", "linestyle": "-"}
    assert sweep.line_style(13) == {"color": "C3", "linestyle": "--"}
    assert len({tuple(sweep.line_style(number).values()) for number in range(40)}) == 40
