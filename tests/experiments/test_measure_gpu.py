"""Variants that share a card: what is started, whose turn it is, what is printed."""

import threading

import pytest

from experiments import measure_gpu
from experiments.benchmarking import turns


def test_every_variant_is_a_benchmark_that_waits_for_its_turn():
    variant = measure_gpu.Variant(suite="train", cases="base_mod21", changes="model.remat=dots")
    _, *arguments = measure_gpu.command(variant, "/runs/turns")
    assert arguments == [
        "-m",
        "experiments.benchmark",
        "--suite=train",
        "--cases=base_mod21",
        "--turns=/runs/turns",
        "--changes=model.remat=dots",
    ]


def test_the_table_names_what_has_a_row_and_what_has_none():
    log = 'compiling …\n{"suite": "train", "case": "base_mod21", "mfu": 0.4, "loop_mfu": null}\nbye'
    measured = {"base": list(measure_gpu.rows(log)), "dots": []}
    assert [line.split() for line in measure_gpu.table(measured)] == [
        ["base", "base_mod21", "mfu=0.4"],
        ["dots", "no", "row"],
    ]


@pytest.mark.parametrize("named", [True, False])
def test_who_names_the_same_file_measures_after_the_other(tmp_path, named):
    path, order = str(tmp_path / "turns") if named else "", []

    def second():
        with turns.turn(path):
            order.append("second")

    other = threading.Thread(target=second)
    with turns.turn(path):
        other.start()
        other.join(0.2)
        order.append("first")
    other.join()
    assert order == (["first", "second"] if named else ["second", "first"])
