"""Bring batches onto the devices in a thread, so that the next one waits for the step."""

import queue
import threading
from collections.abc import Generator, Iterator
from typing import Any

from jax.sharding import Mesh

from fourm_jax.parallel import distributed

_POLL_SECONDS = 0.1


def to_device(batches: Iterator[Any], mesh: Mesh, *, depth: int = 2) -> Generator[Any, None, None]:
    """Yield global device arrays; `depth` batches are ready ahead of the one in use.

    An error of `batches` is raised where the batch would have come. Closing the generator ends
    the thread and closes `batches`: a thread that still reads while Python exits would abort it.
    """
    ready: queue.Queue = queue.Queue(maxsize=depth)
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
            put((None, StopIteration()))
        except BaseException as error:
            put((None, error))

    thread = threading.Thread(target=work, name="batches", daemon=True)
    thread.start()
    try:
        while True:
            batch, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield batch
    finally:
        closed.set()
        thread.join()
        if hasattr(batches, "close"):
            batches.close()
