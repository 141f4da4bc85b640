"""Memory that arrays of batches use one after the other."""

import os

import jax
import ml_dtypes
import numpy as np
import pytest

from fourm_jax.data import blocks

FLOAT = np.dtype(np.float32)


def address(array):
    return array.__array_interface__["data"][0]


def test_an_array_gets_the_memory_of_one_of_its_size_that_is_gone():
    first = blocks.empty((3, 5), FLOAT)
    place = address(first)
    del first
    assert address(blocks.empty((15,), FLOAT)) == place


def test_memory_is_not_used_again_while_a_part_of_the_array_is_held():
    first = blocks.empty((3, 7), FLOAT)
    first[...] = 1
    part = first[1:, 2:]
    del first
    other = blocks.empty((3, 7), FLOAT)
    other[...] = 2
    assert part.tolist() == [[1] * 5] * 2


def test_what_jax_has_taken_stays():
    first = blocks.empty((3, 9), FLOAT)
    first[...] = 1
    taken = jax.device_put(first)
    del first
    for _ in range(3):
        blocks.empty((3, 9), FLOAT)[...] = 2
    np.testing.assert_array_equal(taken, np.ones((3, 9)))


@pytest.mark.filterwarnings("ignore:os.fork")  # of JAX's threads, which the child never needs
def test_a_forked_process_writes_into_memory_of_its_own():
    array = blocks.empty((2,), FLOAT)
    array[...] = 1
    child = os.fork()
    if not child:
        array[...] = 2
        os._exit(0)
    os.waitpid(child, 0)
    assert array.tolist() == [1, 1]


def test_an_array_without_elements_has_its_shape():
    assert blocks.empty((0, 4), FLOAT).shape == (0, 4)


def test_padding_is_cleared_behind_the_length_of_each_row():
    vectors = np.full((3, 2, 1), 7, ml_dtypes.bfloat16)
    blocks.clear_padding(vectors, np.asarray([0, 1, 2], np.int32))
    assert vectors[..., 0].tolist() == [[0, 0], [7, 0], [7, 7]]
