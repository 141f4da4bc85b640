"""Signals as requests; each test sends real ones to its own process."""

import os
import signal

import pytest

from fourm_jax.utils import interrupt


@pytest.fixture(autouse=True)
def heeded():
    """Signals act in these tests, also where those who run them ignore some."""
    before = {number: signal.getsignal(number) for number in interrupt.SIGNALS}
    for number in before:
        signal.signal(number, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", interrupt.SIGNALS)
def test_work_outside_a_loop_leaves_with_an_exit_code_of_its_own(number):
    before = signal.getsignal(number)
    expected = pytest.raises(SystemExit, match=f"{number.name}: stopped")
    with expected as stopped, interrupt.leave_on_signal():
        send(number)
    assert stopped.value.code == interrupt.EXIT_CODE == 75
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("number", interrupt.SIGNALS)
def test_a_loop_that_defers_finds_the_request(number):
    with interrupt.StopRequest() as stop:
        stop.defer()
        send(number)
        assert stop.requested and stop.name == number.name


def test_further_signals_of_a_scheduler_lose_nothing():
    with interrupt.StopRequest() as stop:
        stop.defer()
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            with stop.saving():
                send(number)
        assert stop.name == "SIGTERM"


def test_a_second_ctrl_c_leaves_at_once_but_not_while_state_is_saved():
    with interrupt.StopRequest() as stop:
        stop.defer()
        send(signal.SIGINT)
        with stop.saving():
            send(signal.SIGINT)
        with pytest.raises(interrupt.Interrupted, match="SIGINT twice: left at once"):
            send(signal.SIGINT)


def test_what_is_worth_nothing_is_cut_off():
    with interrupt.StopRequest() as stop:
        stop.defer()
        with pytest.raises(interrupt.CutOff), stop.cutting_off():
            send(signal.SIGHUP)
        assert stop.requested


def test_an_ignored_signal_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    with interrupt.leave_on_signal():
        send(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
