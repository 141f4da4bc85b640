"""Small Python programs in place of trainings: what they get, print and end with."""

import sys

import pytest

from fourm_jax.parallel import distributed, launcher


def run(code, count=2):
    return launcher.run([sys.executable, "-c", code], launcher.environments(count, cpu_devices=3))


def test_every_process_gets_its_number_and_its_lines_are_told_apart(capsys):
    code = (
        "import os; e = os.environ; print(e['FOURM_PROCESS_ID'], 'of', e['FOURM_PROCESS_COUNT'], "
        "e['JAX_NUM_CPU_DEVICES'])"
    )
    assert run(code) == 0
    assert sorted(capsys.readouterr().out.splitlines()) == ["[0] 0 of 2 3", "[1] 1 of 2 3"]


def test_all_meet_at_one_address_and_take_an_accelerator_each():
    first, second = launcher.environments(2, base={})
    assert first[distributed.COORDINATOR] == second[distributed.COORDINATOR]
    assert (first["JAX_LOCAL_DEVICE_IDS"], second["JAX_LOCAL_DEVICE_IDS"]) == ("0", "1")


def test_the_exit_code_is_that_of_the_first_to_fail(monkeypatch):
    monkeypatch.setattr(launcher, "PATIENCE_SECONDS", 0.3)
    code = "import os, sys, time; time.sleep(60 * int(os.environ['FOURM_PROCESS_ID'])); sys.exit(5)"
    assert run(code) == 5  # and the other one is killed, not waited for


@pytest.mark.parametrize("count", [1, 3])
def test_a_run_that_ends_well_gives_zero(count):
    assert run("", count) == 0
