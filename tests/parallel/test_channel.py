"""Processes that tell each other facts: here they are threads, and connections are cut by hand."""

import concurrent.futures
import socket
import time

import pytest

from fourm_jax.parallel import channel as channel_lib
from fourm_jax.parallel import distributed


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def join(count, numbers=None, timeout=5.0):
    """Results of `channel.join` for each number, or what it raised."""
    address = f"127.0.0.1:{free_port()}"
    numbers = range(count) if numbers is None else numbers
    with concurrent.futures.ThreadPoolExecutor() as pool:
        tasks = [pool.submit(channel_lib.join, address, n, count, timeout) for n in numbers]
        return [task.exception() or task.result() for task in tasks]


@pytest.fixture
def three():
    channels = join(3)
    yield channels
    for channel in channels:
        channel.close()


def wait_until(true):
    until = time.monotonic() + 5
    while not true() and time.monotonic() < until:
        time.sleep(0.01)
    assert true()


def test_what_each_one_publishes_is_gathered_by_all_in_the_order_of_their_numbers(three):
    for channel in reversed(three):
        channel.publish("square", channel.index**2)
    assert [channel.gather("square", 5) for channel in three] == [[0, 1, 4]] * 3


def test_a_start_names_the_processes_that_did_not_join():
    found = join(4, numbers=(0, 2), timeout=0.5)
    host = socket.gethostname()
    expected = f"process(es) 1, 3 of 4 did not join in time; here: 0 ({host}), 2 ({host})"
    assert [(type(error), str(error)) for error in found] == [(ConnectionError, expected)] * 2


def test_a_process_that_finds_no_first_one_says_where_it_looked():
    (error,) = join(2, numbers=(1,), timeout=0.3)
    assert "process 1 found no process 0 at 127.0.0.1:" in str(error)


def test_a_number_that_is_taken_and_another_count_are_refused():
    found = [str(error) for error in join(3, numbers=(0, 1, 1), timeout=0.5)]
    assert sum("process 1 is here already" in text for text in found) == 1
    address = f"127.0.0.1:{free_port()}"
    with concurrent.futures.ThreadPoolExecutor() as pool:
        first = pool.submit(channel_lib.join, address, 0, 2, 0.5)
        other = pool.submit(channel_lib.join, address, 1, 4, 0.5)
    assert str(other.exception()) == "it expects 4 processes, process 0 expects 2"
    assert isinstance(first.exception(), ConnectionError)


def test_whoever_connects_and_says_nothing_is_in_nobodys_way(monkeypatch):
    monkeypatch.setattr(channel_lib, "HELLO_SECONDS", 0.1)
    port = free_port()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        first = pool.submit(channel_lib.join, f"127.0.0.1:{port}", 0, 2, 5.0)
        until = time.monotonic() + 5
        while time.monotonic() < until:
            try:
                stranger = socket.create_connection(("127.0.0.1", port))
                break
            except OSError:
                time.sleep(0.01)
        second = pool.submit(channel_lib.join, f"127.0.0.1:{port}", 1, 2, 5.0)
    assert [first.result().count, second.result().count] == [2, 2]
    for one in (first.result(), second.result(), stranger):
        one.close()


def test_a_port_that_is_taken_is_named():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConnectionError, match=rf"cannot listen at port {port}, .*in use"):
            channel_lib.join(f"127.0.0.1:{port}", 0, 2, 1.0)


@pytest.mark.parametrize("victim", [0, 2])
def test_the_others_learn_at_once_which_process_died(three, victim):
    lost = []
    others = [channel for channel in three if channel.index != victim]
    for channel in others:
        channel.on_lost = lambda number, reason, code: lost.append((number, reason, code))
    three[victim]._closed.set()  # a process that is killed says nothing
    for peer in three[victim]._peers.values():
        peer.shutdown(socket.SHUT_RDWR)
    wait_until(lambda: len(lost) == 2)
    assert lost == [(victim, "its connection ended", -1)] * 2
    with pytest.raises(ConnectionError, match=rf"process {victim} \(.*no word of 'step'"):
        others[0].publish("step", 1)
        others[0].gather("step", 0.1)


def test_a_silent_process_counts_as_gone(monkeypatch):
    monkeypatch.setattr(channel_lib, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(channel_lib, "SILENCE_SECONDS", 0.2)
    first, second = join(2)
    lost = []
    first.on_lost = lambda *found: lost.append(found)
    second._closed.set()  # its beat ends, its connection stays
    wait_until(lambda: lost)
    assert lost == [(1, "not heard for 0 s", -1)]
    first.close()


def test_goodbyes_are_no_losses_unless_they_come_with_an_exit_code(three):
    lost = []
    for channel in three:
        channel.on_lost = lambda *found: lost.append(found)
    three[1].close()
    three[2].close(75)
    wait_until(lambda: lost)
    assert lost == [(2, "it ended with code 75", 75)]


def test_all_stop_after_the_step_that_follows_the_latest_answer(three):
    votes = [distributed._Stops(channel) for channel in three]
    for vote, step in zip(votes, (5, 7, 6), strict=True):
        assert not vote.reached("", step)
    assert not votes[2].reached("SIGTERM", 6)
    wait_until(lambda: all(vote.is_agreed for vote in votes))
    assert [[vote.reached("", step) for step in (7, 8)] for vote in votes] == [[False, True]] * 3
    assert votes[0].reason() == f"SIGTERM to process 2 ({socket.gethostname()})"
