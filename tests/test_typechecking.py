"""What the hook of `tests/conftest.py` checks, on functions and classes made here."""

import sys
from typing import Literal

import beartype
import flax
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from jaxtyping import Array, Float, Int

from fourm_jax.jobs import quickstart_report  # noqa: F401  # and all that it imports
from fourm_jax.utils import rng
from tests import typechecking

checked = typechecking.checked


@checked
def scale(x: Float[Array, "n d"], weights: Float[Array, "d"], by: float = 1.0) -> Int[Array, "n d"]:
    return x * weights * by


@checked
def kind_of(name: Literal["grid", "text"]) -> str:
    return name


@checked
class Pair(flax.struct.PyTreeNode):
    first: Float[Array, "*b n"]
    second: Float[Array, "*b n"]


def test_a_wrong_shape_is_refused_by_name():
    with pytest.raises(jaxtyping.TypeCheckError, match="parameter 'weights'"):
        scale(jnp.zeros((2, 3)), jnp.zeros(4))


def test_a_wrong_dtype_of_the_result_is_refused_also_in_a_trace():
    with pytest.raises(jaxtyping.TypeCheckError, match="return value"):
        jax.jit(scale)(jnp.zeros((2, 3)), jnp.zeros(3))


def test_host_arrays_and_ints_serve_as_arguments():
    with pytest.raises(jaxtyping.TypeCheckError, match="return value"):  # so the arguments passed
        scale(np.zeros((2, 3), np.float32), np.zeros(3, np.float32), 2)


def test_a_function_refuses_an_unknown_name_itself():
    assert kind_of("pixels") == "pixels"
    with pytest.raises(beartype.roar.BeartypeCallHintParamViolation):
        kind_of(3)


def test_fields_of_a_pytree_are_checked_when_they_are_arrays():
    pair = Pair(jnp.zeros((2, 3)), jnp.zeros((2, 3)))
    with pytest.raises(jaxtyping.TypeCheckError, match="second"):
        pair.replace(second=jnp.zeros((2, 4)))
    assert jax.tree.map(lambda x: x.shape, pair).first == (2, 3)  # not arrays: anything goes


def test_the_hook_checks_every_room():
    with pytest.raises(jaxtyping.TypeCheckError):
        rng.stream(jax.random.key(0), 3)
    loaded = {name: module for name, module in sys.modules.items() if name.startswith("fourm_jax.")}
    assert {name.split(".")[1] for name in loaded} >= {"evals", "generate", "jobs", "train"}
    unchecked = [
        name
        for name, module in loaded.items()
        if not isinstance(module.__spec__.loader, typechecking.Loader)
    ]
    assert not unchecked
