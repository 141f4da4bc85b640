"""Locks of folders; the other holders are real processes, running or gone."""

import os
import subprocess
import sys
import threading

import pytest
from etils import epath

from fourm_jax.utils import folder_lock, io


@pytest.fixture
def other():
    """A process that runs as long as the test."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.wait()


def lock_of(process, **changes):
    """What the lock of `process` says."""
    own = folder_lock._describe()
    start = folder_lock._process_start(process)
    return {**own, "process": process, "process_start": start, "token": "other", **changes}


def test_a_folder_is_free_again_once_its_holder_lets_go(tmp_path):
    for _ in range(2):
        with folder_lock.hold(tmp_path):
            assert io.read_json(tmp_path / folder_lock.FILE)["process"] == os.getpid()
    assert not (tmp_path / folder_lock.FILE).exists()


def test_a_running_process_keeps_others_out_by_name(tmp_path, other):
    lock = lock_of(other.pid)
    io.write_json(tmp_path / folder_lock.FILE, lock)
    message = f"in use by process {other.pid} on {lock['host']}, started {lock['started']}"
    with pytest.raises(ValueError, match=message.replace("+", r"\+")), folder_lock.hold(tmp_path):
        pass
    assert io.read_json(tmp_path / folder_lock.FILE) == lock


def test_the_lock_of_a_process_that_is_gone_is_taken_over(tmp_path, other):
    lock = lock_of(other.pid)
    other.kill()
    other.wait()
    io.write_json(tmp_path / folder_lock.FILE, lock)
    with folder_lock.hold(tmp_path):
        assert io.read_json(tmp_path / folder_lock.FILE)["process"] == os.getpid()


def test_another_process_with_the_number_of_one_that_is_gone_holds_nothing(tmp_path, other):
    io.write_json(tmp_path / folder_lock.FILE, lock_of(other.pid, process_start="1"))
    with folder_lock.hold(tmp_path):
        assert io.read_json(tmp_path / folder_lock.FILE)["process"] == os.getpid()


@pytest.fixture
def quick(monkeypatch):
    """Locks that beat and become stale in no time."""
    monkeypatch.setattr(folder_lock, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(folder_lock, "STALE_SECONDS", 0.3)


@pytest.mark.parametrize("changes", [{"host": "elsewhere"}, {"namespace": "pid:[1]"}])
def test_a_holder_on_another_host_keeps_others_out_while_it_beats(tmp_path, other, quick, changes):
    path = epath.Path(tmp_path) / folder_lock.FILE
    lock, released = lock_of(other.pid, **changes), threading.Event()
    io.write_json(path, lock)
    beat = threading.Thread(target=folder_lock._beat, args=(path, lock, released))
    beat.start()
    message = f"in use by process {other.pid} on {lock['host']}"
    with pytest.raises(ValueError, match=message), folder_lock.hold(tmp_path):
        pass
    released.set()
    beat.join()
    assert io.read_json(path) == lock


def test_a_silent_holder_on_another_host_is_gone(tmp_path, other, quick, capsys):
    io.write_json(tmp_path / folder_lock.FILE, lock_of(other.pid, host="elsewhere"))
    with folder_lock.hold(tmp_path):
        assert io.read_json(tmp_path / folder_lock.FILE)["process"] == os.getpid()
    assert "on elsewhere" in capsys.readouterr().out


def test_of_several_that_start_in_one_moment_one_holds_the_folder(tmp_path):
    barrier, held = threading.Barrier(8), []

    def start(number):
        barrier.wait()
        lock = {**folder_lock._describe(), "token": str(number)}
        held.append(folder_lock._create(epath.Path(tmp_path) / folder_lock.FILE, lock))

    threads = [threading.Thread(target=start, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(held) == 7 * [False] + [True]
    assert [path.name for path in tmp_path.iterdir()] == [folder_lock.FILE]


def test_half_a_lock_holds_nothing(tmp_path):
    (tmp_path / folder_lock.FILE).write_text('{"host": ')
    with folder_lock.hold(tmp_path):
        assert io.read_json(tmp_path / folder_lock.FILE)["process"] == os.getpid()
