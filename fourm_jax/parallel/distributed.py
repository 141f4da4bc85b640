"""Several processes as one machine: start, agree on stopping, bring batches onto the mesh."""

import atexit
import contextlib
import hashlib
import itertools
import json
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from fourm_jax.parallel import channel as channel_lib
from fourm_jax.parallel import sharding
from fourm_jax.utils import interrupt

COORDINATOR = "FOURM_COORDINATOR"
PROCESS_COUNT = "FOURM_PROCESS_COUNT"
PROCESS_ID = "FOURM_PROCESS_ID"
TIMEOUT = "FOURM_START_TIMEOUT"
VARIABLES = (COORDINATOR, PROCESS_ID, PROCESS_COUNT)

AGREE_SECONDS = 60.0  # for all processes to answer a question
LAST_WORDS_SECONDS = 3.0  # a process that fails beside a lost one may still say why
_NEVER_BY_JAX = 10**6  # seconds of silence until JAX aborts; `channel` is there long before


class _Processes:
    """What this process knows of the others, once there are any."""

    channel: channel_lib.Channel | None = None
    stops: "_Stops | None" = None
    lost = False  # a process is gone and this one is about to leave


def start(
    *,
    cluster: bool = False,
    coordinator: str | None = None,
    process_id: int | None = None,
    process_count: int | None = None,
    timeout_seconds: float | None = None,
) -> None:
    """Join the other processes of a run; call it before anything else touches JAX.

    One process starts alone unless the arguments say otherwise or, where none is given, the
    environment: FOURM_COORDINATOR=host:port, FOURM_PROCESS_ID and FOURM_PROCESS_COUNT (all three).
    `cluster` finds them on machines that JAX knows how to read (Cloud TPU, SLURM, …). Two ports
    must be open between the hosts: the coordinator's, and the one after it. From then on a process
    that dies makes the others leave with its number (`interrupt.PEER_GONE`).

    Args:
      coordinator: address of process 0.
      timeout_seconds: to wait for the rest; default FOURM_START_TIMEOUT or 1,800, as large slices
        start slowly.

    Raises:
      ValueError: only some of the three are given, they are no numbers, or the processes have not
        the same number of devices.
      ConnectionError: the others did not appear in time; names those that are missing.
    """
    given = _given(coordinator, process_id, process_count)
    if given is None and not cluster:
        return
    timeout = timeout_seconds or number(TIMEOUT, "1800")
    # Its handler of SIGTERM would take the place of ours; see `should_stop`.
    jax.config.update("jax_enable_preemption_service", False)
    settings: dict[str, Any] = {
        "initialization_timeout": math.ceil(timeout),
        "heartbeat_timeout_seconds": _NEVER_BY_JAX,
    }
    if given is None:
        jax.distributed.initialize(**settings)
        address = _coordinator_of_jax()
        channel = channel_lib.join(
            _next_port(address), jax.process_index(), jax.process_count(), timeout
        )
    else:
        address, index, count = given
        channel = channel_lib.join(_next_port(address), index, count, timeout)
        jax.distributed.initialize(address, count, index, **settings)
    _Processes.channel, _Processes.stops = channel, _Stops(channel)
    channel.on_lost = _leave_with_peer
    atexit.register(leave, 0)
    check_same("local devices", {"number": jax.local_device_count()})


def _given(
    coordinator: str | None, process_id: int | None, process_count: int | None
) -> tuple[str, int, int] | None:
    """Address of process 0, number of this one and of all; None where nothing is given."""
    values: dict[str, Any] = {
        "--coordinator": coordinator,
        "--process_id": process_id,
        "--process_count": process_count,
    }
    if all(value is None for value in values.values()):
        values = {name: os.environ.get(name) for name in VARIABLES}
    missing = [name for name, value in values.items() if value is None]
    if len(missing) == len(values):
        return None
    if missing:
        raise ValueError(f"{', '.join(missing)} missing: several processes need all of {[*values]}")
    (_, address), (_, index), (count_name, count) = values.items()
    index, count = _parse("process_id", str(index)), _parse(count_name, str(count))
    host, colon, port = address.rpartition(":")
    if not host or not colon or not port.isdecimal() or not 0 < int(port) < 65535:
        raise ValueError(f"coordinator {address!r}, allowed: host:port with a port up to 65534")
    if not 0 <= index < count:
        raise ValueError(f"process_id {index}, allowed: 0 to {count - 1} (of {count} processes)")
    return address, index, count


def number(variable: str, default: str) -> int:
    """Value of an environment variable that holds a number."""
    return _parse(variable, os.environ.get(variable, default))


def _parse(name: str, value: str) -> int:
    if not value.isdecimal():
        raise ValueError(f"{name} {value!r}, allowed: a number")
    return int(value)


def _next_port(address: str) -> str:
    host, _, port = address.rpartition(":")
    return f"{host}:{int(port) + 1}"


def _coordinator_of_jax() -> str:
    from jax._src import distributed  # where orbax reads it too; JAX has no public name for it

    return str(distributed.global_state.coordinator_address)


def check_same(what: str, values: Mapping[str, Any]) -> None:
    """Check that all processes have the same values, of JSON.

    Raises:
      ValueError: names the first keys that differ, the processes and their values.
    """
    channel = _Processes.channel
    if channel is None:
        return
    text = json.dumps(values, sort_keys=True, default=str)
    channel.publish(f"digest of {what}", hashlib.sha256(text.encode()).hexdigest())
    if len(set(channel.gather(f"digest of {what}", AGREE_SECONDS))) == 1:
        return
    channel.publish(what, json.loads(text))
    first, *others = channel.gather(what, AGREE_SECONDS)
    number, other = next((n, one) for n, one in enumerate(others, 1) if one != first)
    keys = [key for key in {**first, **other} if first.get(key) != other.get(key)]
    shown = "; ".join(
        f"{key} is {first.get(key)!r} in {channel.describe(0)}, {other.get(key)!r} in "
        f"{channel.describe(number)}"
        for key in keys[:3]
    )
    raise ValueError(f"{what} of the processes differ: {shown}")


def _leave_with_peer(number: int, reason: str, code: int) -> None:
    """Called in a thread of the channel: a process is gone, and no collective ends from now on."""
    _Processes.lost = True
    channel = _Processes.channel
    named = channel.describe(number) if channel else f"process {number}"
    stopped = code == interrupt.EXIT_CODE
    own_code = interrupt.EXIT_CODE if stopped else interrupt.PEER_GONE

    def leave() -> None:
        if number:
            time.sleep(LAST_WORDS_SECONDS)
        elif code > 0:  # it waits; where it is lost, JAX aborts at once
            time.sleep(LAST_WORDS_SECONDS / 2)
        print(
            f"{named} is gone ({reason}): this process leaves too; the same command on all hosts "
            "continues from the last checkpoint",
            file=sys.stderr,
            flush=True,
        )
        os._exit(own_code)

    threading.Thread(target=leave, name="leave").start()


def has_peers() -> bool:
    """Whether this process has joined others."""
    return _Processes.channel is not None


def leave(code: int) -> None:
    """Tell the others that this process ends; where they do not end too, it ends here.

    Those that end well wait for each other, however long: processes that divide work may have more
    or less of it. What JAX does at the end waits for some minutes only, and aborts when one of them
    is gone.
    """
    if _Processes.channel is None:
        return
    agreed = _Processes.stops is not None and _Processes.stops.is_agreed
    together = code == 0 or (code == interrupt.EXIT_CODE and agreed)
    if together:
        _Processes.channel.publish("finished", True)
        with contextlib.suppress(ConnectionError):  # one is lost: `_leave_with_peer` ends this one
            _Processes.channel.gather("finished", threading.TIMEOUT_MAX)
    _Processes.channel.close(0 if together else code)
    if not together:
        if _Processes.channel.index == 0 and not _Processes.lost:
            time.sleep(LAST_WORDS_SECONDS)  # the others may fail for the same reason and say so
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def abandon(code: int) -> None:
    """End this process now, whatever its other threads do; the others learn the exit code."""
    if _Processes.channel is not None:
        _Processes.channel.close(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@contextlib.contextmanager
def losses_named() -> Iterator[None]:
    """Context whose errors may come from a lost process: its number is then said, not the error.

    A collective without one of its processes fails with a report of the network; an error of this
    process's own, such as a wrong config, is said whoever else is gone.
    """
    try:
        yield
    except (RuntimeError, ConnectionError):  # what XLA, gloo and orbax raise
        if _Processes.channel is not None:
            time.sleep(LAST_WORDS_SECONDS / 3)
        while _Processes.lost:  # until `_leave_with_peer` ends this process
            time.sleep(LAST_WORDS_SECONDS)
        raise


class _Stops:
    """A vote on the step after which all processes stop, once one of them is asked to.

    They may be some steps apart when they hear of it, and one that waits for another's step inside
    a collective must not be waited for. So each one answers from a thread, with the last step at
    which it asked; the stop is the one after the latest answer, which nobody has passed.
    """

    def __init__(self, channel: channel_lib.Channel) -> None:
        self._channel, self._lock = channel, threading.Lock()
        self._step, self._stop_at = -1, sys.maxsize
        self._asked = False
        channel.on_fact = self._hear

    @property
    def is_agreed(self) -> bool:
        """Whether all processes stop after one step."""
        return self._stop_at < sys.maxsize

    def reached(self, requested: str, step: int) -> bool:
        """Whether to stop after `step`; `requested` says what asked this process, if anything."""
        if requested and not self._asked:
            self._channel.publish("stop", requested)
        with self._lock:  # held by the vote
            self._step = step
            return step >= self._stop_at

    def reason(self) -> str:
        """Who was asked to stop, and by what."""
        asked = self._channel.facts("stop")
        return ", ".join(f"{name} to {self._channel.describe(n)}" for n, name in asked.items())

    def _hear(self, name: str) -> None:
        if name == "stop" and not self._asked:
            self._asked = True
            threading.Thread(target=self._vote, name="vote", daemon=True).start()

    def _vote(self) -> None:
        with self._lock:
            self._channel.publish("last step", self._step)
            self._stop_at = max(self._channel.gather("last step", AGREE_SECONDS)) + 1


def should_stop(requested: str, step: int) -> bool:
    """Whether all processes stop after this step, as one of them was asked to.

    Args:
      requested: name of the signal that this process got, "" if none.
      step: number of steps taken; every process must ask at every step.
    """
    return _Processes.stops.reached(requested, step) if _Processes.stops else bool(requested)


def stop_reason() -> str:
    """Why `should_stop` says yes, where another process may have been asked."""
    return _Processes.stops.reason() if _Processes.stops else ""


def part_of_batch(mesh: Mesh) -> tuple[int, int]:
    """Number of the part of every batch that this process reads, and how many parts there are.

    Devices along "tensor" share their samples, so processes that have only such devices of each
    other read the same part. On a mesh of this process alone it reads all.

    Raises:
      ValueError: processes that share some of their samples, but not all.
    """
    groups: dict[int, list[int]] = {}  # by process, the devices that share samples
    for number, devices in enumerate(mesh.devices.reshape(-1, mesh.shape["tensor"])):
        for process in {device.process_index for device in devices}:
            groups.setdefault(process, []).append(number)
    parts = sorted({tuple(numbers) for numbers in groups.values()})
    if sum(map(len, parts)) > len({*itertools.chain(*parts)}) or len({*map(len, parts)}) > 1:
        raise ValueError(
            f"mesh {dict(mesh.shape)}: of {len(groups)} processes some share a part of their "
            "samples; allowed: tensor that divides the devices of a process, or a multiple of them"
        )
    return parts.index(tuple(groups[jax.process_index()])), len(parts)


def put_batch(batch: Any, mesh: Mesh) -> Any:
    """Arrays [b_local, ...] of this process -> global arrays, samples divided over the mesh.

    Of several processes each has its part of the batch (`part_of_batch`).

    Raises:
      ValueError: several processes, and samples that do not divide over (data, fsdp).
    """
    num_local = jax.tree.leaves(batch)[0].shape[0]
    if not mesh.is_multi_process:
        return jax.device_put(batch, sharding.batch_sharding(mesh, num_local))
    num_samples = num_local * part_of_batch(mesh)[1]
    layout = sharding.batch_sharding(mesh, num_samples)
    if layout.is_fully_replicated and num_samples > num_local:
        raise ValueError(
            f"a batch of {num_samples} records does not divide over the mesh "
            f"{dict(mesh.shape)}: with several processes it must (data × fsdp)"
        )

    def whole(own: Any) -> jax.Array:
        own = np.asarray(own)
        shape = (num_samples, *own.shape[1:])
        return jax.make_array_from_process_local_data(layout, own, shape)

    return jax.tree.map(whole, batch)


def decided_by_first(decide: Callable[[], int]) -> int:
    """Return `decide()` of the first process on every process."""
    if jax.process_count() == 1:
        return decide()
    value = decide() if jax.process_index() == 0 else 0
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))
