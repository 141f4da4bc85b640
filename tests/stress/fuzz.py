"""The fuzz suite: damaged files go to every reader; each must be taken, or refused by a ValueError.

    python -m tests.stress.fuzz --seconds=300 --seed=0 [--only=safetensors]

Prints per reader how many files were tried, refused, accepted, how many errors of another kind
escaped, and how many took longer than the limit. The exit code is 1 if anything escaped or hung;
--keep=DIR keeps those files. A run of one seed and one number of rounds is repeatable; a run of a
number of seconds goes on from there as far as it comes.
"""

import argparse
import collections
import contextlib
import dataclasses
import itertools
import os
import pathlib
import random
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence

from tests.stress import mutators

LIMIT = 10.0  # seconds for one file; the slowest readers trace a model, which takes one or two
MEMORY = 6 * 2**30  # bytes of addresses beyond those at the start, of the command
OUTCOMES = ("refused", "accepted", "escaped", "hung")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """One reader of files.

    Attributes:
      name: of the reader and the kind of file.
      seeds: good files.
      read: what is fuzzed; ValueError is how it refuses.
      mutate: damages one of the seeds.
      rounds: files of a short run: fewer where one takes long.
    """

    name: str
    seeds: Sequence[bytes]
    read: Callable[[bytes], object]
    mutate: mutators.Mutate = mutators.damage
    rounds: int = 150


@dataclasses.dataclass
class Result:
    """What became of the files of one target."""

    counts: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    slowest: float = 0.0
    failures: list[tuple[str, bytes]] = dataclasses.field(default_factory=list)


class _Hang(BaseException):
    pass


def run(target: Target, seed: int, rounds: int | None, seconds: float = float("inf")) -> Result:
    """Damage and read so many files, or for so long."""
    rng = random.Random(f"{target.name} {seed}")
    result, end = Result(), time.monotonic() + seconds
    for data in target.seeds:  # what is not damaged is read, or nothing would be tried
        target.read(data)
    for number in itertools.count() if rounds is None else range(rounds):
        if time.monotonic() > end:
            break
        _attempt(target, target.mutate(rng, rng.choice(target.seeds)), number, result)
    return result


def _attempt(target: Target, data: bytes, number: int, result: Result) -> None:
    start = time.monotonic()
    try:
        with _alarm():
            target.read(data)
        outcome, what = "accepted", ""
    except ValueError as error:
        outcome, what = "refused", str(error)
    except _Hang:
        outcome, what = "hung", ""
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of Rust code is no Exception
        outcome, what = "escaped", f"{type(error).__name__}: {error}"
    taken = time.monotonic() - start
    if taken > LIMIT and outcome != "escaped":  # code that is not Python cannot be interrupted
        outcome = "hung"
    result.slowest = max(result.slowest, taken)
    result.counts[outcome] += 1
    if outcome in ("escaped", "hung"):
        message = f"{target.name}, file {number}: {outcome} {what[:200]} after {taken:.1f} s"
        result.failures.append((message, data))


@contextlib.contextmanager
def _alarm() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise _Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def targets(folder: pathlib.Path) -> list[Target]:
    """All targets; they write the files that they damage below `folder`."""
    from tests.stress import fuzz_data, fuzz_models, fuzz_pictures

    modules = (fuzz_data, fuzz_pictures, fuzz_models)
    return [target for module in modules for target in module.targets(folder)]


def main(argv: Sequence[str] | None = None) -> int:
    """Run all targets for the given time together; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--rounds", type=int, default=None, help="files per target; default: time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="part of the names of targets")
    parser.add_argument("--keep", type=pathlib.Path, default=None)
    options = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        chosen = [t for t in targets(pathlib.Path(folder)) if options.only in t.name]
        _limit_memory()
        total: collections.Counter[str] = collections.Counter()
        heads = "".join(f"{name:>10}" for name in OUTCOMES)
        print(f"{'target':<28}{'tried':>9}{heads} slowest")
        for target in chosen:
            seconds = options.seconds / len(chosen)
            result = run(target, options.seed, options.rounds, seconds)
            _report(target.name, result.counts, f"{result.slowest:.2f} s")
            total.update(result.counts)
            for number, (message, data) in enumerate(result.failures):
                print(f"  {message}: {data[:60]!r}")
                if options.keep:
                    options.keep.mkdir(parents=True, exist_ok=True)
                    name = target.name.replace("/", "-").replace(" ", "-")
                    (options.keep / f"{name}-{number}").write_bytes(data)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        _report("all", total, f"{peak:.2f} GiB at most")
    return int(total["escaped"] + total["hung"] > 0)


def _report(name: str, counts: collections.Counter[str], more: str) -> None:
    columns = "".join(f"{counts[outcome]:>10}" for outcome in OUTCOMES)
    print(f"{name:<28}{sum(counts.values()):>9}{columns} {more}", flush=True)


def _limit_memory() -> None:
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGESIZE") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


if __name__ == "__main__":
    sys.exit(main())
