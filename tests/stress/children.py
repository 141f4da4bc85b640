"""Runs as processes that can be killed, each forked from one that has imported everything.

`python -m tests.stress.children` is that one: it reads orders, one JSON object per line, and forks
a process for each. A start then costs a tenth of a second, not an import of everything.
"""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from typing import Any

ROOT = pathlib.Path(__file__).parents[2]
ERROR, DEFECT = 1, 3  # exit codes: an error that a command says in one line, or any other
PATIENCE = 120.0  # seconds


@dataclasses.dataclass(frozen=True)
class Child:
    """A process of its own; `path` names its files: .log, .pid and, at the end, .code."""

    path: pathlib.Path

    @property
    def log(self) -> str:
        return self._read(".log") or ""

    @property
    def pid(self) -> int:
        return int(self._wait_for(".pid"))

    def has_ended(self) -> bool:
        return self._read(".code") is not None

    def code(self) -> int:
        """Exit code, negative for a signal; waits for the end."""
        return int(self._wait_for(".code"))

    def send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)

    def wait_for_log(self, text: str) -> None:
        until = time.monotonic() + PATIENCE
        while text not in self.log and not self.has_ended():
            assert time.monotonic() < until, f"{text!r} never came: {self.log}"
            time.sleep(0.002)

    def _wait_for(self, suffix: str) -> str:
        until = time.monotonic() + PATIENCE
        while (content := self._read(suffix)) is None:
            assert time.monotonic() < until, f"no {suffix}: {self.log}"
            time.sleep(0.002)
        return content

    def _read(self, suffix: str) -> str | None:
        try:
            return self.path.with_suffix(suffix).read_text(errors="replace") or None
        except FileNotFoundError:
            return None


class Nursery:
    """Starts children; `folder` holds their files."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder, self._count = folder, 0
        eight = "--xla_force_host_platform_device_count=8"  # of the tests' own process
        environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": os.environ.get("XLA_FLAGS", "").replace(eight, ""),
            # A cache of their own: a child that is killed may leave half an entry.
            "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
        }
        command = [sys.executable, "-m", "tests.stress.children"]
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, text=True
        )

    def train(self, workdir: pathlib.Path, **options: Any) -> Child:
        """Start or continue a training of a tiny tokenizer; see `_train`."""
        return self._order("train", workdir=str(workdir), **options)

    def command(self, name: str, arguments: list[str], environment: dict[str, str]) -> Child:
        """Start a command of experiments/ with these arguments."""
        return self._order("command", name=name, arguments=arguments, environment=environment)

    def result(self, work: str, **options: Any) -> Any:
        """What function `_<work>` of this module returns in a child."""
        child = self._order(work, **options)
        assert child.code() == 0, child.log
        return json.loads(child.path.with_suffix(".json").read_text())

    def close(self) -> None:
        self._process.communicate()

    def _order(self, work: str, **options: Any) -> Child:
        self._count += 1
        child = Child(self._folder / f"child{self._count}")
        line = json.dumps({"work": work, "path": str(child.path), "options": options})
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return child


def _train(
    workdir: str,
    *,
    task: str = "tokenizer",
    largest_file: int | None = None,
    stuck_after: int | None = None,
    busy: str = "",
    batches_to: str = "",
    peers: dict[str, Any] | None = None,
    hang_seconds: float = 0.0,
    latest_seconds: float | None = None,
    **config: Any,
) -> None:
    """Train.

    Args:
      task: which config of `tests.train.tiny`.
      largest_file: bytes that a file may have, as on a disk that is nearly full.
      stuck_after: number of batches after which the reader hangs.
      busy: a phase that does not end, see `_make_busy`.
      batches_to: folder for the digests of the records of every batch, one file per process.
      peers: arguments of `distributed.start`, and "num_devices" of this process.
      hang_seconds: see `loop.train`.
      latest_seconds: `interrupt.LATEST_SECONDS`.
    """
    if peers is not None:
        _join(**peers)
    from fourm_jax.jobs import training_evals
    from fourm_jax.train import loop
    from fourm_jax.utils import interrupt
    from tests.train import tiny

    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    if latest_seconds is not None:
        interrupt.LATEST_SECONDS = latest_seconds
    if stuck_after is not None:
        _read_through(lambda number, *_: _hang(number >= stuck_after))
    if batches_to:
        _read_through(functools.partial(_note_batch, pathlib.Path(batches_to)))
    evaluators = [_make_busy(busy)] if busy else []
    config = getattr(tiny, task)(**config)
    if task == "trunk":
        evaluators += training_evals.make(config, workdir)
    loop.train(
        config, workdir, show_progress=False, hang_seconds=hang_seconds, evaluators=evaluators
    )


def _read_through(look: Any) -> None:
    """From now on `look(number, process, batch)` sees every batch before the run does."""
    from fourm_jax.data import pipeline

    def through(read: Any) -> Any:
        def batches(*arguments: Any, **options: Any) -> Iterator[Any]:
            process = options.get("process_index", 0)
            with contextlib.closing(read(*arguments, **options)) as found:
                for number, batch in enumerate(found, options.get("start", 0)):
                    look(number, process, batch)
                    yield batch

        return batches

    pipeline.make_raw_batches = through(pipeline.make_raw_batches)
    pipeline.make_batches = through(pipeline.make_batches)


def _hang(hangs: bool) -> None:
    while hangs:
        print("stuck", flush=True)
        time.sleep(1000)


def _note_batch(folder: pathlib.Path, number: int, process: int, batch: Any) -> None:
    """Append the digest of each record of this process's part of a batch."""
    import hashlib

    import jax
    import numpy as np

    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(batch)]
    rows = [
        hashlib.sha256(b"".join(leaf[row].tobytes() for leaf in leaves)).hexdigest()
        for row in range(len(leaves[0]))
    ]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{process}.jsonl").open("a") as file:
        file.write(json.dumps({"step": number, "rows": rows}) + "\n")


def _make_busy(phase: str) -> Any:
    """Let a phase last: "compilation", "step" and "evaluation" in a call of the system that no
    signal interrupts, "long evaluation" in Python, "save" in the thread that writes.

    Returns an evaluator, which is what `evaluation` needs.
    """
    import orbax.checkpoint as ocp

    from fourm_jax.train import program

    make, finalize = program.make, ocp.PyTreeCheckpointHandler.finalize

    def make_slowly(*arguments: Any) -> Any:
        made = make(*arguments)
        if phase == "compilation":
            _wait_in_the_system(phase)
        return dataclasses.replace(made, train_step=functools.partial(step, made.train_step))

    def step(train_step: Any, state: Any, batch: Any, root: Any) -> Any:
        if phase == "step" and int(state.step) == 4:
            _wait_in_the_system(phase)
        return train_step(state, batch, root)

    def finalize_slowly(self: Any, directory: Any) -> None:
        if phase == "save":
            print("busy: save", flush=True)
            time.sleep(6)
        finalize(self, directory)

    def evaluate(state: Any, done: int) -> Iterator[tuple[str, float]]:
        if phase == "evaluation":
            _wait_in_the_system(phase)
        if phase == "long evaluation":
            print(f"busy: {phase}", flush=True)
            time.sleep(3)
        yield "value", float(done)

    program.make = make_slowly
    ocp.PyTreeCheckpointHandler.finalize = finalize_slowly
    return evaluate


def _wait_in_the_system(phase: str) -> None:
    import ctypes

    from fourm_jax.utils import interrupt

    print(f"busy: {phase}", flush=True)
    signal.pthread_sigmask(signal.SIG_BLOCK, interrupt.SIGNALS)  # other threads get them
    ctypes.CDLL(None).sleep(1000)


def _join(num_devices: int, **arguments: Any) -> None:
    import jax

    from fourm_jax.parallel import distributed

    jax.config.update("jax_num_cpu_devices", num_devices)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    distributed.start(**arguments)


def _command(name: str, arguments: list[str], environment: dict[str, str]) -> None:
    """What `python -m experiments.<name> …` does; its own end, with its own code, ends this."""
    import runpy

    # Set: a command that starts as itself starts again with large pages.
    os.environ.update({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1", **environment})
    sys.argv = [name, *arguments]
    runpy.run_module(f"experiments.{name}", run_name="__main__", alter_sys=True)


def _state(workdir: str) -> dict[str, Any]:
    """Step of the newest sound checkpoint and a digest of its parameters."""
    import hashlib

    import jax
    import numpy as np

    from fourm_jax.models import trained

    found = trained.load(workdir)
    leaves = jax.tree.leaves((found.params, found.model_state))
    content = b"".join(np.asarray(leaf).tobytes() for leaf in leaves)
    return {"step": found.step, "digest": hashlib.sha256(content).hexdigest()}


def _damage(workdir: str, copy: str, seed: int, num_cases: int) -> list[dict[str, Any]]:
    """Damage a copy of the newest checkpoint in many ways; what whoever reads it then finds."""
    import random
    import shutil

    rng, found = random.Random(seed), []
    for _ in range(num_cases):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(workdir, copy)
        checkpoints = pathlib.Path(copy, "checkpoints")
        newest = max(checkpoints.iterdir(), key=lambda path: int(path.name))
        file = rng.choice(sorted(path for path in newest.rglob("*") if path.is_file()))
        how = rng.choice(["flip", "flip", "flip", "cut", "empty", "delete", "zeros"])
        _damage_file(file, how, rng)
        case = {"how": how, "file": str(file.relative_to(newest))}
        try:
            found.append({**case, **_state(copy)})
        except Exception as error:
            found.append({**case, "error": f"{type(error).__name__}: {error}"})
    return found


def _damage_file(file: pathlib.Path, how: str, rng: Any) -> None:
    content = bytearray(file.read_bytes())
    position = rng.randrange(len(content) or 1)
    if how == "delete":
        file.unlink()
        return
    if how == "flip" and content:
        content[position] ^= 1 << rng.randrange(8)
    elif how == "zeros":
        content[position : position + 4096] = bytes(len(content[position : position + 4096]))
    elif how in ("cut", "empty"):
        del content[position if how == "cut" else 0 :]
    file.write_bytes(content)


def _shards(directory: str, *, largest_file: int | None = None) -> int:
    """Write two shards of 100 records of 20 kB; return how many of them are read back."""
    import numpy as np

    from fourm_jax.data.storage import shard_writer, shards

    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    rows = np.random.default_rng(0).integers(0, 255, (100, 20_000), dtype=np.uint8)
    shard_writer.write_split(
        directory, "train", {"rows": 100}, 2, lambda shard: ({"row": row} for row in rows)
    )
    reader = shards.Reader(directory, "train")
    return sum(bool((reader[n]["row"] == rows[n % 100]).all()) for n in range(len(reader)))


WORK = {"train": _train, "command": _command, "state": _state, "damage": _damage, "shards": _shards}


def _serve() -> None:
    import jax  # noqa: F401  what the children need; none of it starts a device
    import orbax.checkpoint  # noqa: F401
    from absl import logging

    from fourm_jax.models import trained  # noqa: F401
    from fourm_jax.train import loop  # noqa: F401
    from tests.train import tiny  # noqa: F401

    logging.set_verbosity(logging.ERROR)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _watch(json.loads(line))


def _watch(order: dict[str, Any]) -> None:
    """Fork the process that does the work; write its number and, in the end, its exit code."""
    path = pathlib.Path(order["path"])
    pid = os.fork()
    if pid == 0:
        os._exit(_obey(path, WORK[order["work"]], order["options"]))
    _write(path.with_suffix(".pid"), str(pid))
    _, status = os.waitpid(pid, 0)
    _write(path.with_suffix(".code"), str(os.waitstatus_to_exitcode(status)))
    os._exit(0)


def _obey(path: pathlib.Path, work: Any, options: dict[str, Any]) -> int:
    """Do the work as a command does: known errors in one line, stopped runs with their own code."""
    from fourm_jax.parallel import distributed
    from fourm_jax.utils import interrupt

    # A shell without job control starts what runs behind it with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    log = os.open(path.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        with interrupt.leave_on_signal():
            _write(path.with_suffix(".json"), json.dumps(work(**options)))
        code = 0
    except interrupt.Interrupted as stopped:
        print(stopped, flush=True)
        code = interrupt.EXIT_CODE
    except (ValueError, OSError, FloatingPointError, MemoryError) as error:
        print(f"error: {error}", flush=True)
        code = ERROR
    except SystemExit as end:  # as python shows it
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if code and not isinstance(end.code, int):
            print(end.code, flush=True)
    except BaseException:
        traceback.print_exc()
        code = DEFECT
    sys.stdout.flush()
    sys.stderr.flush()
    if distributed.has_peers():
        import jax

        distributed.leave(code)
        jax.distributed.shutdown()  # as at the end of Python: waits for the others
    return code


def _write(path: pathlib.Path, content: str) -> None:
    """All at once, so that whoever polls never reads half of it."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(content)
    temporary.replace(path)


if __name__ == "__main__":
    _serve()
