"""Lookups in a table whose columns are cut over devices, beside replicas of them."""

import re

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from fourm_jax.parallel import mesh as mesh_lib
from fourm_jax.parallel import sharding


def loss(table, index):
    found = sharding.constrain(jnp.take(table, index, axis=0, mode="clip"), sharding.LOOKED_UP)
    return (sharding.constrain(found, P(sharding.BATCH)) ** 3).sum()


def test_no_device_sums_a_gradient_of_the_size_of_the_table():
    rng = np.random.default_rng(0)
    table = rng.normal(size=(64, 16)).astype(np.float32)
    index = rng.integers(0, 64, (8, 5))
    expected = jax.grad(loss)(table, index)
    mesh = mesh_lib.make_mesh(data=2, fsdp=4)
    cut = NamedSharding(mesh, P(None, "fsdp"))
    with jax.set_mesh(mesh):
        step = jax.jit(jax.grad(loss), out_shardings=cut)
        arguments = (
            jax.device_put(table, cut),
            jax.device_put(index, NamedSharding(mesh, P(sharding.BATCH))),
        )
        hlo = step.lower(*arguments).compile().as_text()
        found = step(*arguments)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    summed = re.findall(r"(\w+\[[\d,]*\])\S* all-reduce\(", hlo)
    assert "f32[64,4]" in summed and "f32[64,16]" not in summed
