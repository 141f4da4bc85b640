"""Bring batches onto the devices in a thread, so that the next one waits for the step.

Nothing here keeps a batch that was handed on: each of its arrays gives up Python's lock as it is
freed, and gets it back after up to 5 ms while the thread is at work. When that happens is for the
loop to choose.
"""

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any

from jax.sharding import Mesh

from fourm_jax.parallel import distributed

DEPTH = 2  # batches that are ready ahead of the one in use
_POLL_SECONDS = 0.1
_CLOSE_SECONDS = 2.0  # how long a stopped run waits for a reader that may be stuck


class Stopped(Exception):
    """The run was asked to stop while it waited for a batch."""


class _Ended(Exception):
    """There are no more batches."""


def to_device(
    batches: Iterator[Any],
    mesh: Mesh,
    *,
    stopped: Callable[[], bool] = lambda: False,
) -> Generator[Any, None, None]:
    """Yield global device arrays; `DEPTH` batches are ready ahead.

    An error of `batches` is raised where the batch would have come. Closing the generator ends
    the thread and closes `batches`: a thread that still reads while Python exits would abort it.

    Args:
      stopped: asked while waiting for a batch.

    Raises:
      Stopped: no batch was ready when `stopped` became true; a reader that is stuck is left.
    """
    ready: queue.Queue = queue.Queue(maxsize=DEPTH)
    closed = threading.Event()

    def put(item: Any) -> None:
        while not closed.is_set():
            try:
                return ready.put(item, timeout=_POLL_SECONDS)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for batch in batches:
                put((distributed.put_batch(batch, mesh), None))
                if closed.is_set():
                    return
            put((None, _Ended()))
        except BaseException as error:
            put((None, error))

    thread = threading.Thread(target=work, name="batches", daemon=True)
    thread.start()
    try:
        while True:
            yield _take(ready, stopped)
    except _Ended:
        return
    finally:
        closed.set()
        thread.join(_CLOSE_SECONDS if stopped() else None)
        if hasattr(batches, "close") and not thread.is_alive():
            batches.close()


def _take(ready: queue.Queue, stopped: Callable[[], bool]) -> Any:
    """The next batch; raises what came in its place."""
    while True:
        try:
            batch, error = ready.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            if stopped():
                raise Stopped() from None
            continue
        if error is not None:
            raise error
        return batch
