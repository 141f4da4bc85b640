"""Rows of cut tables: values and gradients of the plain lookup, and no sum of a whole table."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from fourm_jax.parallel import lookup, sharding
from fourm_jax.parallel import mesh as mesh_lib

ROWS, DIM = 24, 16
MESHES = [
    {"data": 8},
    {"fsdp": 8, "data": 1},
    {"data": 2, "fsdp": 4},
    {"data": 4, "fsdp": 1, "tensor": 2},
    {"data": 2, "fsdp": 2, "tensor": 2},
]


def arrays(num_samples=8, dtype=np.float32):
    """A table, indices with repetitions and some outside of it, and weights of what is found."""
    rng = np.random.default_rng(0)
    index = rng.integers(-2, ROWS + 2, (num_samples, 5))
    index[0] = 3
    weights = rng.normal(size=(*index.shape, DIM))
    return rng.normal(size=(ROWS, DIM)).astype(dtype), index, weights.astype(np.float32)


def plain(table, index):
    return jnp.take(table, index, axis=0, mode="clip")


def results(take, table, index, weights):
    """What is found, and the gradient of a sum that weighs every occurrence on its own."""

    def loss(table):
        found = take(table, index)
        return (weights * found.astype(jnp.float32)).sum(), found

    gradient, found = jax.grad(loss, has_aux=True)(table)
    return found, gradient


def placed(sizes, table, index):
    mesh = mesh_lib.make_mesh(**sizes)
    cut = sharding.state_shardings({"tokens": table}, mesh)["tokens"]
    samples = sharding.batch_sharding(mesh, len(index))
    return mesh, jax.device_put(table, cut), jax.device_put(index, samples)


@pytest.mark.parametrize("sizes", MESHES, ids=str)
def test_values_are_those_of_the_plain_lookup_and_gradients_too(sizes):
    table, index, weights = arrays()
    expected, expected_gradient = results(plain, table, index, weights)
    mesh, on_mesh, divided = placed(sizes, table, index)
    with jax.set_mesh(mesh):
        step = jax.jit(functools.partial(results, lookup.take_rows))
        found, gradient = step(on_mesh, divided, weights)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-6, atol=1e-6)
    assert gradient.sharding.is_equivalent_to(on_mesh.sharding, 2)


def test_no_device_sums_or_holds_a_gradient_of_the_size_of_the_table():
    table, index, weights = arrays()
    mesh, on_mesh, divided = placed({"data": 2, "fsdp": 4}, table, index)
    with jax.set_mesh(mesh):
        step = jax.jit(functools.partial(results, lookup.take_rows))
        hlo = step.lower(on_mesh, divided, weights).compile().as_text()
    assert re.findall(r"(\w+\[[\d,]*\])\S* all-reduce\(", hlo) == ["f32[24,4]"]
    assert "f32[24,16]" not in hlo
    assert "all-to-all" in hlo


def test_gradients_of_bfloat16_tables_are_summed_in_float32():
    table, index, weights = arrays(dtype=jnp.bfloat16)
    index[:] = 0  # 40 occurrences of one row
    mesh, on_mesh, divided = placed({"data": 2, "fsdp": 4}, table, index)
    with jax.set_mesh(mesh):
        found, gradient = jax.jit(functools.partial(results, lookup.take_rows))(
            on_mesh, divided, weights
        )
    assert found.dtype == gradient.dtype == jnp.bfloat16
    exact = weights.astype(jnp.bfloat16).astype(np.float32).sum((0, 1))
    np.testing.assert_array_equal(gradient[0], exact.astype(jnp.bfloat16))


def test_what_is_found_is_scaled_rounded_and_then_sent():
    table, index, weights = arrays()

    def scaled(table, index):
        return lookup.take_rows(table, index, 3.0, jnp.bfloat16)

    def scaled_plain(table, index):
        return (plain(table, index) * 3.0).astype(jnp.bfloat16)

    expected, expected_gradient = results(scaled_plain, table, index, weights)
    np.testing.assert_array_equal(scaled(table, index), expected)  # without a mesh
    mesh, on_mesh, divided = placed({"data": 2, "fsdp": 2, "tensor": 2}, table, index)
    with jax.set_mesh(mesh):
        found, gradient = jax.jit(functools.partial(results, scaled))(on_mesh, divided, weights)
        text = str(jax.make_jaxpr(scaled)(on_mesh, divided))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-6, atol=1e-6)
    assert re.findall(r"(\w+)\[[\d,]*\] = all_to_all", text) == ["bf16"]


def test_loops_and_rematerialization_change_nothing():
    table, index, weights = arrays()
    expected, expected_gradient = results(plain, table, index, weights)

    def looped(table, index):
        def body(total, _):
            return total + jax.checkpoint(lookup.take_rows)(table, index) / 4, None

        return jax.lax.scan(body, jnp.zeros(weights.shape), None, length=4)[0]

    mesh, on_mesh, divided = placed({"data": 2, "fsdp": 2, "tensor": 2}, table, index)
    with jax.set_mesh(mesh):
        step = jax.jit(functools.partial(results, looped))
        found, gradient = step(on_mesh, divided, weights)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-6, atol=1e-6)


def test_a_table_that_every_device_holds_whole_stays_so():
    table, index, weights = arrays()
    expected = results(plain, table, index, weights)
    mesh = mesh_lib.make_mesh(data=2, fsdp=4)
    whole = jax.device_put(table, NamedSharding(mesh, P()))
    with jax.set_mesh(mesh):
        step = jax.jit(
            functools.partial(results, lookup.take_rows), out_shardings=(None, whole.sharding)
        )
        found, gradient = step(whole, index, weights)
    np.testing.assert_array_equal(found, expected[0])
    np.testing.assert_allclose(gradient, expected[1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("sizes", "num_samples", "is_exchanged"),
    [
        (None, 8, False),
        ({"data": 8}, 8, False),
        ({"data": 2, "fsdp": 4}, 6, False),
        ({"data": 2, "fsdp": 4}, 8, True),
    ],
)
def test_where_nothing_is_cut_or_samples_do_not_divide_it_is_the_plain_lookup(
    sizes, num_samples, is_exchanged
):
    table, index, _ = arrays(num_samples)
    if sizes is None:
        text = str(jax.make_jaxpr(lookup.take_rows)(table, index))
    else:
        with jax.set_mesh(mesh_lib.make_mesh(**sizes)):
            text = str(jax.make_jaxpr(lookup.take_rows)(table, index))
    assert ("all_to_all" in text) == is_exchanged
