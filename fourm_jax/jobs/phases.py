"""Phases of a long job: one line each, seconds that add up over restarts, peak memory."""

import contextlib
import math
import resource
from collections.abc import Iterator
from typing import Any

from etils import epath

from fourm_jax.utils import io, plain_data, progress

RULES = {
    "seconds": plain_data.dict_of(plain_data.number(0, math.inf)),
    "peak_rss_gb": plain_data.number(0, math.inf),
}


class Phases:
    """Record of the phases of one job, kept in `<workdir>/phases.json`.

    A phase that was interrupted and resumed counts the seconds of all its tries; one that finds
    its results in place is marked as reused and keeps the seconds it once took.
    """

    def __init__(self, workdir: epath.PathLike, names: tuple[str, ...]) -> None:
        """Read what earlier runs of the same job recorded; `names` in their order."""
        self._path = epath.Path(workdir) / "phases.json"
        self._names = names
        self._seconds: dict[str, float] = {}
        self._peak = 0.0
        if self._path.exists():
            stored = io.read_json(self._path)
            plain_data.check(stored, RULES, self._path, required=RULES)
            self._seconds = {k: v for k, v in stored["seconds"].items() if k in names}
            self._peak = stored["peak_rss_gb"]

    @contextlib.contextmanager
    def run(self, name: str, doing: str) -> Iterator[None]:
        """Announce phase `name`, time what happens inside, and save the sum even on failure."""
        place = f"[{self._names.index(name) + 1}/{len(self._names)}] {name}"
        progress.announce(f"{place}: {doing}")
        watch = progress.Stopwatch()
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + watch.seconds()
            self._peak = max(self._peak, peak_rss_gb())
            io.write_json(self._path, self.summary())
        progress.announce(f"{place}: done in {watch.seconds():.0f} s")

    def reuse(self, name: str, found: str) -> None:
        """Announce that phase `name` is complete already; `found` says what is there."""
        place = f"[{self._names.index(name) + 1}/{len(self._names)}] {name}"
        progress.announce(f"{place}: reusing {found}")

    def summary(self) -> dict[str, Any]:
        """{"seconds": {phase: s, ..., "total": s}, "peak_rss_gb": x}."""
        known = [name for name in self._names if name in self._seconds]
        seconds = {name: round(self._seconds[name], 2) for name in known}
        seconds["total"] = round(sum(seconds.values()), 2)
        return {"seconds": seconds, "peak_rss_gb": round(self._peak, 3)}


def peak_rss_gb() -> float:
    """Largest resident memory of this process so far, in GB (10^9 bytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
