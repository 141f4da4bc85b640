"""Phases add up over restarts and survive failures."""

import json

import pytest

from fourm_jax.jobs import phases


def test_seconds_of_a_phase_add_up_over_two_runs(tmp_path, capsys):
    names = ("render", "trunk")
    for _ in range(2):
        record = phases.Phases(tmp_path, names)
        with record.run("render", "drawing"):
            pass
        record._seconds["render"] += 1.0
        with record.run("trunk", "training"):
            pass
    summary = phases.Phases(tmp_path, names).summary()
    assert summary["seconds"]["render"] == pytest.approx(2.0, abs=0.1)
    assert summary["seconds"]["total"] == pytest.approx(2.0, abs=0.1)
    assert "[2/2] trunk: training" in capsys.readouterr().out


def test_a_phase_that_fails_is_still_counted_and_the_error_passes(tmp_path):
    record = phases.Phases(tmp_path, ("render",))
    with pytest.raises(ZeroDivisionError), record.run("render", "drawing"):
        1 / 0  # noqa: B018
    assert "render" in json.loads((tmp_path / "phases.json").read_text())["seconds"]


def test_peak_memory_is_that_of_a_python_process():
    assert 0.01 < phases.peak_rss_gb() < 100
