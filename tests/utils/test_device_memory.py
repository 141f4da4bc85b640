"""A device with too little memory: what happened, what JAX may take, what to do, in one line."""

import jax
import pytest

from fourm_jax.utils import device_memory

GIB = 2**30


def test_too_little_memory_on_the_device_is_one_line_with_advice():
    report = "INTERNAL: while running:\nRESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nmore"
    expected = r"\(RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes\.\)\. Take less$"
    with (
        pytest.raises(MemoryError, match=expected),
        device_memory.explained("Take less"),
    ):
        raise jax.errors.JaxRuntimeError(report)
    with (
        pytest.raises(jax.errors.JaxRuntimeError, match="another"),
        device_memory.explained("Take less"),
    ):
        raise jax.errors.JaxRuntimeError("another fault")


def test_a_full_gpu_says_what_jax_may_take_and_how_it_gets_more():
    said = device_memory.allowance("gpu", {"bytes_limit": 80 * GIB, "bytes_in_use": 30 * GIB})
    assert said == (
        "JAX may take 80.0 GiB here, 30.0 are in use; XLA_PYTHON_CLIENT_MEM_FRACTION=.95 allows "
        "95 % of the card (without it 75). "
    )


def test_a_tpu_gives_all_that_it_has():
    said = device_memory.allowance("tpu", {"bytes_limit": 16 * GIB, "bytes_in_use": GIB // 2})
    assert said == "JAX may take 16.0 GiB here, 0.5 are in use. "


def test_nothing_is_said_of_a_device_that_does_not_count_its_memory():
    assert device_memory.allowance("cpu", {}) == ""
