"""Signals as requests; each test sends real ones to its own process."""

import ctypes
import os
import signal
import threading

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


def busy_in_the_system(seconds):
    """Send a signal that Python cannot look at for so long, as in a compilation."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # another thread gets it
    try:
        send(signal.SIGTERM)
        ctypes.CDLL(None).usleep(int(1e6 * seconds))
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


@pytest.fixture
def left(monkeypatch):
    """Exit codes with which a request was left after a tenth of a second."""
    monkeypatch.setattr(interrupt, "LATEST_SECONDS", 0.1)
    return []


def test_a_signal_inside_a_long_call_of_the_system_ends_in_time_and_says_why(left, capfd):
    with interrupt.StopRequest(left.append, lambda: "step 3") as stop:
        stop.defer()
        busy_in_the_system(0.5)
    assert left == [interrupt.EXIT_CODE]
    assert (
        "SIGTERM: 0 s later this was not over: step 3. Stopped without saving"
        in capfd.readouterr().err
    )


def test_a_state_that_is_being_written_is_waited_for(left, capfd):
    with interrupt.StopRequest(left.append) as stop:
        stop.defer()
        with stop.saving():
            busy_in_the_system(0.5)
    assert not left and stop.requested
    assert "the state is still being written" in capfd.readouterr().out


def test_whoever_leaves_in_time_is_left_alone(left):
    with interrupt.StopRequest(left.append) as stop:
        stop.defer()
        send(signal.SIGTERM)
    watching = [thread for thread in threading.enumerate() if thread.name == "last resort"]
    for thread in watching:
        thread.join(5)
    assert stop.requested and not left
    assert not any(thread.is_alive() for thread in watching)
