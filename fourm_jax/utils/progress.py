"""What a user sees of a run: one line per phase, and a bar with rate and time left."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from tqdm import auto  # widgets in notebooks

T = TypeVar("T")


def announce(message: str) -> None:
    """Print one line of progress at once, above a running bar."""
    auto.tqdm.write(message, file=sys.stdout)
    sys.stdout.flush()


class Bar:
    """Progress bar, redrawn at log points; silent when `enabled` is False."""

    def __init__(
        self,
        num_steps: int,
        *,
        label: str,
        unit: str,
        start: int = 0,
        enabled: bool = True,
        show_rate: bool = True,
    ) -> None:
        """Start at `start` of `num_steps`; `label` says what goes on, `unit` what is counted.

        `show_rate=False` leaves out units per second, for notes that say it better.
        """
        counted, rate = ("", ", {rate_fmt}") if show_rate else (f" {unit}", "")
        self._bar = auto.tqdm(
            total=num_steps,
            initial=start,
            desc=label,
            unit=unit,
            disable=not enabled,
            dynamic_ncols=True,
            bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt}"
            + counted
            + " [{elapsed}<{remaining}"
            + rate
            + "{postfix}]",
            # A log file gets one line now and then instead of a redrawn one.
            mininterval=0.5 if sys.stderr.isatty() else 30.0,
        )

    def update(self, step: int, notes: dict[str, str] | None = None) -> None:
        """Move to `step`; `notes` are shown behind the time left."""
        if notes:
            self._bar.set_postfix(notes, refresh=False)
        self._bar.update(step - self._bar.n)

    def close(self) -> None:
        self._bar.close()


def track(
    items: Sequence[T],
    *,
    label: str,
    unit: str,
    name: Callable[[T], str] = str,
    enabled: bool = True,
) -> Iterator[T]:
    """The items one by one, behind a bar that shows the `name` of the one in hand."""
    bar = Bar(len(items), label=label, unit=unit, enabled=enabled)
    try:
        for number, item in enumerate(items):
            bar.update(number, {"now": name(item)})
            yield item
        bar.update(len(items), {"now": "done"})
    finally:
        bar.close()


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def seconds(self) -> float:
        return time.perf_counter() - self._start
