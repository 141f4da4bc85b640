"""Locks of folders; the other holders are real processes, running or gone."""

import os
import subprocess
import sys

import pytest

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
        pass


def test_a_holder_on_another_host_is_respected(tmp_path, other):
    io.write_json(tmp_path / folder_lock.FILE, lock_of(other.pid, host="elsewhere"))
    with (
        pytest.raises(ValueError, match=f"on elsewhere.*remove .*{folder_lock.FILE}"),
        folder_lock.hold(tmp_path),
    ):
        pass


def test_half_a_lock_holds_nothing(tmp_path):
    (tmp_path / folder_lock.FILE).write_text('{"host": ')
    with folder_lock.hold(tmp_path):
        pass
