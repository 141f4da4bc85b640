"""One command as several processes of this machine: started, told apart, ended as one."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import IO

from fourm_jax.parallel import distributed

PATIENCE_SECONDS = 90.0  # for the others to end by themselves once one has failed
POLL_SECONDS = 0.1


def environments(
    num_processes: int, *, cpu_devices: int = 0, base: Mapping[str, str] | None = None
) -> list[dict[str, str]]:
    """Environment of each process; they meet on two free ports of this machine.

    Args:
      cpu_devices: forced devices of each process on the CPU; 0: process i takes accelerator i.
      base: what they inherit, default this process's environment.
    """
    address = f"127.0.0.1:{free_ports()}"
    found = []
    for number in range(num_processes):
        own = {
            distributed.COORDINATOR: address,
            distributed.PROCESS_COUNT: str(num_processes),
            distributed.PROCESS_ID: str(number),
        }
        if cpu_devices:
            own |= {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(cpu_devices)}
            own["JAX_CPU_COLLECTIVES_IMPLEMENTATION"] = "gloo"
        else:
            own["JAX_LOCAL_DEVICE_IDS"] = str(number)
        found.append({**(os.environ if base is None else base), **own})
    return found


def free_ports() -> int:
    """A port that is free now, and the one after it too."""
    while True:
        with socket.socket() as one, socket.socket() as other, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            other.bind(("127.0.0.1", port + 1))
            return int(port)


def run(command: Sequence[str], own_environments: Sequence[Mapping[str, str]]) -> int:
    """Run `command` once per environment; return 0, or the exit code of the first that failed.

    Every line of output is preceded by the number of its process. SIGTERM and Ctrl-C go to all of
    them. When one fails the others, which miss it, are waited for and then killed.
    """
    processes = [
        subprocess.Popen(
            command,
            env=dict(own),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches them through `_passed_on` alone
        )
        for own in own_environments
    ]
    printers = [
        threading.Thread(target=_print_lines, args=(number, process.stdout))
        for number, process in enumerate(processes)
    ]
    for printer in printers:
        printer.start()
    with _passed_on(processes):
        code = _wait(processes)
    for printer in printers:
        printer.join()
    return code


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> int:
    first_failure, until = 0, float("inf")
    while any(process.poll() is None for process in processes):
        failed = [process.returncode for process in processes if process.returncode]
        if failed and not first_failure:
            first_failure, until = failed[0], time.monotonic() + PATIENCE_SECONDS
        if time.monotonic() > until:
            for process in processes:
                process.kill()
        time.sleep(POLL_SECONDS)
    failed = [process.returncode for process in processes if process.returncode]
    return first_failure or (failed[0] if failed else 0)


@contextlib.contextmanager
def _passed_on(processes: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    def send(number: int, _: object) -> None:
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, send) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _print_lines(number: int, stream: IO[bytes] | None) -> None:
    for line in stream or ():
        sys.stdout.write(f"[{number}] {line.decode(errors='replace')}")
        sys.stdout.flush()
