"""What is planned of a chain and of a prediction; here a CPU's programs stand in for a GPU's."""

import jax
import jax.numpy as jnp
import pytest

from fourm_jax.generate import plans
from fourm_jax.generate import state as states
from fourm_jax.generate.schedule import Step
from fourm_jax.parallel import gpus, topology
from tests.generate import tiny

H200 = gpus.GPUS["h200"]
STEPS = [
    *(Step(target="edge", scheme="roar", num_tokens=3) for _ in range(3)),
    Step(target="caption", scheme="autoregressive"),
]


def start(targets):
    return states.create(tiny.conditions(2, ("rgb",)), targets, specs=tiny.SPECS)


def place():
    here = jax.devices()[:1]
    return topology.Topology(name="here", devices=here, memory_bytes=H200.memory_bytes, gpu=H200)


def chain_parts(**changes):
    model, params = tiny.trunk(**changes)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    state = start(("edge", "caption"))
    return plans.of_chain(model, shapes, state, STEPS, plans.one_device(place()))


def test_passes_with_the_same_slots_are_calls_of_one_program_and_a_text_is_one_call():
    first, others, caption = chain_parts()
    # rgb and the sentinel of the caption; from the second pass on also what is written of edge
    assert (first.name, first.num_calls, first.slots) == ("edge", 1, (6 + 1, 3))
    assert (others.name, others.num_calls, others.slots) == ("edge", 2, (6 + 9 + 1, 3))
    assert (caption.name, caption.num_calls, caption.slots) == ("caption", 1, (6 + 9 + 1, 1))
    assert [part.num_tokens for part in (first, others, caption)] == [1, 1, 8]


def test_a_narrower_type_has_the_kernels_cast_once():
    cast, *others = chain_parts(dtype=jnp.bfloat16)
    assert (cast.name, cast.num_calls) == ("cast", 0)  # a `Generator` keeps what it gives
    assert len(others) == 3


def test_a_token_is_what_a_round_of_the_loop_takes():
    *_, caption = chain_parts()
    row = plans.report(caption, place(), plans.one_device(place()))
    least, per_token = row["least_ms"]["sum"], row["per_token"]
    assert row["tokens"] == 8
    assert row["answers"] % 8 == 1  # the same for each, and whether there is one, once more
    assert 0 < 8 * per_token["kernels"] < least["kernels"]  # the encoder is none of it
    assert row["fits"]


def test_programs_of_several_targets_are_one_or_one_each():
    model, params = tiny.trunk()
    both = plans.of_prediction(model, params, start(("depth", "edge")), ("depth", "edge"))
    assert (both.name, both.slots) == ("predict", (6, 18))
    alone = plans.of_prediction(model, params, start(("edge",)), ("edge",))
    assert (alone.name, alone.slots) == ("edge", (6, 9))


def row(name, calls, num_bytes, kernels, gb, **others):
    numbers = {"kernels": kernels, "gb": gb, "tflop": 0.5, "ms": 2.0}
    least = {"copies": numbers, "sum": numbers}
    shared = {"name": name, "calls": calls, "bytes": num_bytes, "compile_s": 1.5, "fits": True}
    return {**shared, "least_ms": least, "answers": 0, **others}


def test_a_chain_takes_what_all_calls_take_and_as_much_memory_as_its_largest_program():
    rows = [
        row("cast", 0, 1500, 4, 0.25, argument_bytes=1000),  # once, and in no call
        row("edge", 3, 700, 100, 1.5),
        row("edge", 1, 800, 200, 2.0),
        row("caption", 1, 600, 10, 0.5, answers=9),
    ]
    found = plans.total(rows)
    assert found["num_programs"] == 4
    assert found["calls"] == 5
    assert found["peak_bytes"] == 1000 + 800  # parameters as they were before the cast stay
    assert found["answers"] == 9
    assert found["answers_between"] == 2  # before every target
    assert found["least_ms"]["sum"] == {"kernels": 510, "gb": 7.0, "tflop": 2.5, "ms": 10.0}
    assert found["start_ms"] == pytest.approx(510 * 0.0025, abs=0.01)
    assert found["compile_s"] == 6.0


def test_a_program_that_is_refused_leaves_a_total_without_kernels():
    refused = {"name": "edge", "calls": 1, "fits": False, "bytes": 9, "compile_s": 1.0}
    found = plans.total([row("caption", 1, 600, 10, 0.5), refused])
    assert not found["fits"]
    assert "least_ms" not in found


@pytest.mark.skipif(topology.cuda_version() is None, reason="needs pip install fourm_jax[cuda]")
@pytest.mark.scale
def test_a_gpu_asks_once_per_token_and_never_in_a_pass():
    there = topology.find("gpu:1xh200")
    mesh = plans.one_device(there)
    model, params = tiny.trunk(dim=64, dtype=jnp.bfloat16)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    parts = plans.of_chain(model, shapes, start(("edge", "caption")), STEPS, mesh)
    answers = [(part.name, plans.report(part, there, mesh)["answers"]) for part in parts]
    assert answers == [("cast", 0), ("edge", 0), ("edge", 0), ("caption", 8 + 1)]
