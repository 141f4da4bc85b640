import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from fourm_jax.utils import memory_views

CPU = jax.devices("cpu")


def rows_of(device=None):
    return jax.device_put(jnp.arange(96.0).reshape(3, 32), device)


@pytest.mark.parametrize(("index", "first"), [(1, 1), (slice(2), 0), (slice(1, 3), 1)])
def test_a_part_lies_where_the_array_has_it(index, first):
    array = rows_of(CPU[0])
    part = memory_views.part(array, index)
    np.testing.assert_array_equal(part, np.arange(96.0).reshape(3, 32)[index])
    assert part.unsafe_buffer_pointer() == array.unsafe_buffer_pointer() + first * 32 * 4


def test_a_part_goes_with_other_devices_where_its_array_does():
    assert memory_views.part(rows_of(CPU[1]), 1).devices() == {CPU[1]}
    assert memory_views.part(rows_of(CPU[1]), 1).committed
    assert not memory_views.part(rows_of(), 1).committed


def test_a_part_outlives_its_array_and_what_is_written_over_it():
    array = rows_of()
    part = memory_views.part(array, 2)
    written = jax.jit(lambda x: x * 0 - 1, donate_argnums=0)(array)
    del array
    np.testing.assert_array_equal(part, np.arange(64.0, 96.0))
    assert bool((written == -1).all())


def test_arrays_of_several_devices_of_the_host_and_of_programs_are_indexed():
    on_mesh = rows_of(NamedSharding(jax.make_mesh((2,), ("x",)), P(None, "x")))
    inside = jax.jit(lambda x: memory_views.part(x, 1))
    for array in (on_mesh, np.asarray(rows_of())):
        assert not memory_views.may_share(array)
        np.testing.assert_array_equal(memory_views.part(array, 1), np.arange(32.0, 64.0))
    np.testing.assert_array_equal(inside(rows_of()), np.arange(32.0, 64.0))
