"""Batches on their way to the devices."""

import weakref

import jax
import numpy as np
import pytest

from fourm_jax.parallel import mesh as mesh_lib
from fourm_jax.train import prefetch

MESH = mesh_lib.make_mesh(devices=jax.devices()[:1], data=1)


def test_batches_come_in_order_and_end():
    batches = prefetch.to_device(iter([{"ids": np.full(2, n)} for n in range(4)]), MESH)
    assert [batch["ids"].tolist() for batch in batches] == [[0, 0], [1, 1], [2, 2], [3, 3]]


def test_a_batch_that_was_handed_on_is_held_by_its_taker_alone():
    batches = prefetch.to_device(iter([{"ids": np.zeros(2)}, {"ids": np.ones(2)}]), MESH)
    ids = next(batches)["ids"]
    taken = weakref.ref(ids)
    del ids
    assert taken() is None
    batches.close()


def test_an_error_of_the_reader_is_raised_where_its_batch_would_have_come():
    def read():
        yield {"ids": np.zeros(2)}
        raise ValueError("a damaged record")

    batches = prefetch.to_device(read(), MESH)
    next(batches)
    with pytest.raises(ValueError, match="a damaged record"):
        next(batches)


def test_a_request_to_stop_ends_the_waiting_for_a_batch():
    def read():
        while not asked:
            pass
        yield {"ids": np.zeros(2)}

    asked = []

    def stopped():
        asked.append(True)
        return len(asked) == 1

    with pytest.raises(prefetch.Stopped):
        next(prefetch.to_device(read(), MESH, stopped=stopped))
