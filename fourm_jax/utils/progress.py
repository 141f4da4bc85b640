"""What a user sees of a run: one line per phase, and a bar with rate and time left."""

import sys
import time

import tqdm


def announce(message: str) -> None:
    """Print one line of progress at once, above a running bar."""
    tqdm.tqdm.write(message, file=sys.stdout)
    sys.stdout.flush()


class Bar:
    """Progress bar over steps, redrawn at log points; silent when `enabled` is False."""

    def __init__(
        self, num_steps: int, *, start: int = 0, label: str = "train", enabled: bool
    ) -> None:
        self._bar = tqdm.tqdm(
            total=num_steps,
            initial=start,
            desc=label,
            unit="step",
            disable=not enabled,
            dynamic_ncols=True,
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


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def seconds(self) -> float:
        return time.perf_counter() - self._start
