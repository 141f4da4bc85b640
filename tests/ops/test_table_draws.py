"""A table that is drawn by parts holds the numbers that it would get at once."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fourm_jax.ops import table_draws


@pytest.mark.parametrize("init", [nn.initializers.normal(0.02), nn.initializers.uniform(2.0)])
@pytest.mark.parametrize("part", [1, 100, 7000])
def test_parts_change_no_bit(init, part):
    shape, key = (1001, 7), jax.random.key(3)

    parts = jax.jit(table_draws.in_parts(init, part), static_argnums=1)(key, shape)

    np.testing.assert_array_equal(parts, jax.jit(init, static_argnums=1)(key, shape))


@pytest.mark.parametrize(
    ("key", "dtype"),
    [(jax.random.key(3, impl="rbg"), jnp.float32), (jax.random.key(3), jnp.bfloat16)],
)
def test_what_cannot_be_drawn_by_parts_is_drawn_at_once(key, dtype):
    init = nn.initializers.normal(0.02)

    parts = table_draws.in_parts(init, 100)(key, (64, 7), dtype)

    np.testing.assert_array_equal(parts, init(key, (64, 7), dtype))


def test_a_table_takes_the_memory_of_itself_and_a_few_parts():
    part, shape = 2**16, (4096, 256)
    init = table_draws.in_parts(nn.initializers.normal(0.02), part)

    compiled = jax.jit(init, static_argnums=1).lower(jax.random.key(0), shape).compile()

    memory = compiled.memory_analysis()
    assert memory.temp_size_in_bytes < 8 * 4 * part  # at once three tables
    assert memory.output_size_in_bytes == 4 * 4096 * 256
