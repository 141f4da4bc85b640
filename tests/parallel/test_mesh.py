"""Mesh sizes, the rule table, and constraints that vanish without a mesh."""

from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from configs import fourm as fourm_configs
from fourm_jax.convert import fourm
from fourm_jax.models import from_config
from fourm_jax.parallel import distributed, mesh, sharding

CUBE = {"data": 2, "fsdp": 2, "tensor": 2}


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


def specs(state, **sizes):
    shardings = sharding.state_shardings(state, mesh.make_mesh(**(sizes or CUBE)))
    return jax.tree.map(lambda s: s.spec, shardings)


def test_minus_one_takes_the_rest():
    assert dict(mesh.make_mesh(tensor=2, fsdp=2).shape) == CUBE


@pytest.mark.parametrize(
    "sizes", [{"data": 3}, {"fsdp": 3}, {"data": -1, "fsdp": -1}, {"tensor": 0}, {"data": 4}]
)
def test_sizes_that_do_not_cover_the_devices_are_refused(sizes):
    with pytest.raises(ValueError, match=r"mesh \{'data': .*-1"):
        mesh.make_mesh(**sizes)


def chip(number, slice_index):
    """A device of one of several slices."""
    named = {"platform": "cpu", "device_kind": "cpu", "process_index": 0}
    return mock.Mock(spec=jax.Device, id=number, slice_index=slice_index, **named)


def test_each_slice_holds_a_part_of_the_data_axis():
    chips = [chip(number, number // 4) for number in (3, 1, 5, 7, 0, 2, 4, 6)]
    grid = mesh.make_mesh(data=-1, fsdp=2, devices=chips).devices
    assert grid.shape == (4, 2, 1)
    assert [[one.slice_index for one in row.flat] for row in grid] == [[0, 0]] * 2 + [[1, 1]] * 2
    with pytest.raises(ValueError, match="on 2 slices: data must be a multiple of 2"):
        mesh.make_mesh(data=1, fsdp=8, devices=chips)


def test_rules_are_right_aligned_and_hold_for_moments_of_the_same_name():
    block = {"self_attention": {"qkv": {"kernel": shape(3, 8, 3, 2, 4)}}}
    expected = P(None, "fsdp", None, "tensor")
    found = specs({"params": block, "opt_state": ({"mu": block}, {"nu": block})})
    assert jax.tree.leaves(found, is_leaf=lambda x: isinstance(x, P)) == [expected] * 3


def test_an_axis_that_does_not_divide_is_replicated():
    assert specs({"fc1": {"kernel": shape(6, 85)}})["fc1"]["kernel"] == P("fsdp")
    assert specs({"fc1": {"kernel": shape(5, 84)}})["fc1"]["kernel"] == P(None, "tensor")


def test_a_large_array_without_a_rule_is_refused_where_parameters_are_cut():
    state = {"strange": shape(2048, 1024)}
    with pytest.raises(ValueError, match=r"no sharding rule names 'strange' of shape"):
        specs(state)
    assert specs(state, data=8)["strange"] == P()


def test_learned_positions_and_euclidean_codebooks_of_any_size_are_replicated():
    config = fourm_configs.get_config("mix=mod21,size=large")
    with config.unlocked():
        config.model.positions = "learned"
    model = from_config.make_model(config)
    tokens = fourm.example_tokens(model)
    params = jax.eval_shape(model.init, jax.random.key(0), tokens)["params"]
    table = params["encoder_embedding"]["positions"]["table"]
    assert table.size > sharding.LARGEST_UNNAMED
    codebook = {"codes": shape(16384, 256), "code_sums": shape(16384, 256)}
    found = specs({"params": params, "codebook": {"quantizer": codebook}})
    assert found["params"]["encoder_embedding"]["positions"]["table"] == P()
    assert found["codebook"]["quantizer"] == {"codes": P(), "code_sums": P()}


def test_batches_are_divided_over_data_and_fsdp():
    grid = mesh.make_mesh(**CUBE)
    batch = {"ids": np.zeros((8, 3), np.uint16), "length": np.zeros(8, np.int32)}
    on_mesh = distributed.put_batch(batch, grid)
    assert on_mesh["ids"].sharding.spec == P(("data", "fsdp"))
    assert on_mesh["ids"].addressable_shards[0].data.shape == (2, 3)
    odd = distributed.put_batch({"ids": np.zeros((3, 3))}, grid)
    assert odd["ids"].sharding.is_fully_replicated


@pytest.mark.parametrize(
    ("processes", "part"),
    [
        ([[0, 0], [0, 0]], (0, 1)),
        ([[0, 0], [1, 1]], (0, 2)),
        ([[1, 1], [0, 0]], (1, 2)),  # the order is that of the mesh
        ([[0, 1], [2, 3]], (0, 2)),  # a process for each device: two of them share samples
        ([[0, 1], [0, 1]], (0, 1)),
        ([[2, 3], [0, 1], [2, 3], [0, 1]], (1, 2)),  # as on the torus of a TPU
    ],
)
def test_processes_whose_devices_share_samples_read_the_same_part(processes, part):
    assert distributed.part_of_batch(of_processes(processes)) == part


@pytest.mark.parametrize("processes", [[[0, 0], [0, 1], [1, 1]], [[0, 0], [0, 0], [1, 1]]])
def test_processes_that_share_a_part_of_their_samples_are_refused(processes):
    with pytest.raises(ValueError, match="of 2 processes some share a part of their samples"):
        distributed.part_of_batch(of_processes(processes))


def of_processes(numbers):
    """A mesh (data, tensor) of devices that belong to these processes."""
    devices = [[[mock.Mock(process_index=one) for one in row]] for row in numbers]
    sizes = {"data": len(numbers), "fsdp": 1, "tensor": len(numbers[0])}
    return mock.Mock(spec=jax.sharding.Mesh, devices=np.array(devices), shape=sizes)


def test_a_constraint_does_nothing_without_a_mesh_and_pins_the_batch_with_one():
    x = jnp.ones((8, 2))

    @jax.jit
    def double(x):
        return sharding.constrain(2 * x, P(sharding.BATCH))

    np.testing.assert_array_equal(double(x), 2 * x)
    with jax.set_mesh(mesh.make_mesh(**CUBE)):
        assert double(x).sharding.shard_shape((8, 2)) == (2, 2)


@pytest.mark.parametrize(
    ("environment", "arguments", "message"),
    [
        ({"COORDINATOR": "a:1"}, {}, "FOURM_PROCESS_ID, FOURM_PROCESS_COUNT missing: several"),
        ({}, {"process_id": 0}, "--coordinator, --process_count missing: several processes"),
        (
            {"COORDINATOR": "a:1", "PROCESS_ID": "x", "PROCESS_COUNT": "2"},
            {},
            "process_id 'x', allowed: a number",
        ),
        (
            {},
            {"coordinator": "a", "process_id": 0, "process_count": 2},
            "coordinator 'a', allowed: host:port",
        ),
        (
            {},
            {"coordinator": "a:1", "process_id": 2, "process_count": 2},
            r"process_id 2, allowed: 0 to 1 \(of 2 processes\)",
        ),
    ],
)
def test_a_start_that_is_given_by_half_or_makes_no_sense_is_refused(
    monkeypatch, environment, arguments, message
):
    for name, value in environment.items():
        monkeypatch.setenv(f"FOURM_{name}", value)
    with pytest.raises(ValueError, match=message):
        distributed.start(**arguments)


def test_one_process_starts_alone():
    distributed.start()
    assert jax.process_count() == 1
    assert distributed.should_stop("SIGTERM", 3)
    assert not distributed.should_stop("", 3)
