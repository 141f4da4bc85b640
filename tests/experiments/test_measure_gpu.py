"""Variants that share a card: what is started, whose turn it is, what is printed."""

import select
import subprocess
import sys
import time

import pytest

from experiments import measure_gpu
from experiments.benchmarking import turns


def test_every_variant_is_a_benchmark_that_waits_for_its_turn():
    variant = measure_gpu.Variant(
        suite="train", cases="base_mod21", changes="model.remat=dots", loop=False
    )
    _, *arguments = measure_gpu.command(variant, "/runs/turns")
    assert arguments == [
        "-m",
        "experiments.benchmark",
        "--suite=train",
        "--cases=base_mod21",
        "--turns=/runs/turns",
        "--changes=model.remat=dots",
        "--noloop",
    ]


def test_the_table_names_what_has_a_row_and_what_has_none():
    log = 'compiling …\n{"suite": "train", "case": "base_mod21", "mfu": 0.4, "loop_mfu": null}\nbye'
    measured = {"base": list(measure_gpu.rows(log)), "dots": []}
    assert [line.split() for line in measure_gpu.table(measured)] == [
        ["base", "base_mod21", "mfu=0.4"],
        ["dots", "no", "row"],
    ]


SCRIPT = """
import sys
from experiments.benchmarking import turns
turns.enter(sys.argv[1])
input()
turns.take(sys.argv[1])
turns.take(sys.argv[1])
print("measures", flush=True)
input()
"""


class Benchmark:
    """A process that enters, waits for a line, takes its turn, says so and waits for a line."""

    def __init__(self, folder):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
        self.process = subprocess.Popen([sys.executable, "-c", SCRIPT, folder], **pipes)

    def go_on(self):
        self.process.stdin.write("\n")

    def measures(self, seconds=60.0):
        return bool(select.select([self.process.stdout], [], [], seconds)[0])


@pytest.fixture
def three(tmp_path):
    """Three benchmarks that entered one after the other."""
    found = []
    for number in range(3):
        found.append(Benchmark(str(tmp_path)))
        while len(list(tmp_path.glob("*.compiles"))) <= number:
            time.sleep(0.05)
    yield found
    for one in found:
        one.process.kill()
        one.process.communicate()


def test_all_compile_before_one_measures_and_who_came_first_measures_first(three):
    first, second, third = three
    second.go_on()
    third.go_on()
    assert not second.measures(1)  # the first one compiles
    first.go_on()
    assert first.measures()
    assert not second.measures(1)  # until the first one has ended
    first.go_on()
    first.process.wait()
    assert second.measures()
    assert not third.measures(1)


def test_nobody_waits_for_a_process_that_is_gone(three):
    first, second, third = three
    first.process.kill()  # while it compiled
    first.process.communicate()
    second.go_on()
    third.go_on()
    assert second.measures()
    second.process.kill()  # while it measured
    second.process.communicate()
    assert third.measures()


def test_without_a_folder_nobody_is_waited_for_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(turns.time, "sleep", lambda seconds: pytest.fail("waits"))
    turns.enter("")
    turns.take("")
    assert not list(tmp_path.iterdir())
