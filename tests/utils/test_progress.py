"""Bars say what goes on and in which unit."""

import pytest

from fourm_jax.train import announcements
from fourm_jax.utils import progress
from tests.train import tiny


def test_a_bar_names_what_is_counted_and_the_item_in_hand(capsys):
    tasks = progress.track(["rgb", "depth"], label="evaluate", unit="modality", name=str.upper)
    assert list(tasks) == ["rgb", "depth"]
    shown = capsys.readouterr().err
    assert "evaluate" in shown
    assert "2/2" in shown
    assert "modality" in shown


def test_a_bar_that_is_off_draws_nothing(capsys):
    assert list(progress.track([1, 2], label="x", unit="y", enabled=False)) == [1, 2]
    assert capsys.readouterr().err == ""


def test_a_bar_whose_notes_hold_the_rate_shows_no_other(capsys):
    bar = progress.Bar(500_000, label="trunk", unit="step", start=150_000, show_rate=False)
    bar.update(150_100, {"loss": "6.7907", "samples/s": "1130", "waiting": "3%"})
    bar.close()
    line = capsys.readouterr().err.split("\r")[-1].rstrip()
    assert "| 150100/500000 step [" in line
    assert line.endswith(", loss=6.7907, samples/s=1130, waiting=3%]")
    assert "step/s" not in line


@pytest.mark.parametrize(
    ("config", "label"), [(tiny.tokenizer(), "tokenizer "), (tiny.trunk(), "trunk")]
)
def test_a_training_says_which_one_it_is(config, label):
    assert announcements.label(config).startswith(label)
