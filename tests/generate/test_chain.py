"""What every generation scheme promises, on a tiny random trunk."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fourm_jax.generate import chain, parallel, stages, trunk
from fourm_jax.generate import state as states
from fourm_jax.generate.grids import Sampling
from fourm_jax.generate.schedule import Step
from fourm_jax.models import layers
from tests.generate import tiny

# Three steps everywhere, empty ones where a test needs fewer: tests then share compiled programs.
NINE = {"maskgit": (2, 4, 3), "roar": (4, 3, 2)}


def steps_for(scheme, target="depth", counts=None, **fields):
    if scheme == "autoregressive":
        return [Step(target=target, scheme=scheme, **fields)]
    return [
        Step(target=target, scheme=scheme, num_tokens=count, **fields)
        for count in counts or NINE[scheme]
    ]


def generate(state, steps, *, rows=None, seed=0, params=None, **options):
    model, random_params = tiny.trunk()
    rows = np.arange(state.batch_size) if rows is None else rows
    keys = chain.row_keys(seed, rows)
    return chain.run(model, params or random_params, state, steps, keys=keys, **options)


def start(num_rows=2, targets=("depth",), names=("rgb", "caption"), **entries):
    conditions = {**tiny.conditions(num_rows, names), **entries}
    return states.create(conditions, targets, specs=tiny.SPECS)


def all_steps(**fields):
    return [
        *steps_for("maskgit", "depth", **fields),
        *steps_for("roar", "edge", **fields),
        *steps_for("roar", "vector", (4,), **fields),
        *steps_for("autoregressive", "caption", **fields),
    ]


def test_a_chain_of_all_kinds_fills_every_target_inside_its_vocabulary():
    names = ("depth", "edge", "vector", "caption")
    state = generate(start(targets=names, names=("rgb",)), all_steps(guidance=2.0, guided=("rgb",)))
    for name in names[:3]:
        spec = tiny.SPECS[states.index_of(tiny.SPECS, name)]
        assert bool(state.known[name].all())
        assert 0 <= int(state.ids[name].min()) <= int(state.ids[name].max()) < spec.vocab_size
    assert state.ids["caption"].shape == (2, 8)


@pytest.mark.parametrize("scheme", ["maskgit", "roar"])
def test_a_row_is_generated_alike_alone_and_in_a_batch(scheme):
    together = generate(start(), steps_for(scheme))
    alone = jax.tree.map(lambda leaf: leaf[1:], start())
    single = generate(alone, steps_for(scheme), rows=np.array([1]))
    np.testing.assert_array_equal(together.ids["depth"][1], single.ids["depth"][0])


def test_a_seed_repeats_and_another_seed_differs():
    first, again = (generate(start(), steps_for("roar"), seed=1) for _ in range(2))
    other = generate(start(), steps_for("roar"), seed=2)
    np.testing.assert_array_equal(first.ids["depth"], again.ids["depth"])
    assert (first.ids["depth"] != other.ids["depth"]).any()


@pytest.mark.parametrize("scheme", ["maskgit", "roar"])
def test_in_painting_never_changes_what_is_known(scheme):
    given = np.arange(18).reshape(2, 9) % 11
    known = np.zeros((2, 9), bool)
    known[0, :4], known[1, 5:] = True, True
    state = start(depth={"ids": given, "known": known})
    done = generate(state, steps_for(scheme, counts=(4, 1, 0)))
    np.testing.assert_array_equal(np.asarray(done.ids["depth"])[known], given[known])
    assert bool(done.known["depth"].all())


def test_a_row_with_fewer_open_positions_than_the_schedule_is_left_alone_once_full():
    known = np.ones((2, 9), bool)
    known[1, :5] = False
    done = generate(start(depth={"ids": np.full((2, 9), 3), "known": known}), steps_for("roar"))
    assert done.ids["depth"][0].tolist() == [3] * 9


def test_steps_write_as_many_tokens_as_they_say():
    state = generate(start(), steps_for("maskgit", counts=(2, 3, 0)))
    assert state.known["depth"].sum(axis=1).tolist() == [5, 5]


def test_roar_writes_in_the_order_given():
    order = jnp.array([[8, 0, 4, 1, 2, 3, 5, 6, 7], [7, 6, 5, 4, 3, 2, 1, 0, 8]])
    state = generate(start(), steps_for("roar", counts=(3, 0, 0)), orders={"depth": order})
    assert np.flatnonzero(state.known["depth"][0]).tolist() == [0, 4, 8]
    assert np.flatnonzero(state.known["depth"][1]).tolist() == [5, 6, 7]


def test_rows_have_their_own_random_order_unless_generated_as_published():
    steps = steps_for("roar", counts=(4, 0, 0))
    ours = np.asarray(generate(start(), steps).known["depth"])
    published = generate(start(), steps, sampling=Sampling(as_published=True)).known["depth"]
    assert (ours[0] != ours[1]).any()
    np.testing.assert_array_equal(published[0], published[1])


@pytest.mark.parametrize("scheme", ["maskgit", "roar", "autoregressive"])
def test_guidance_of_weight_one_is_no_guidance(scheme):
    target = "caption" if scheme == "autoregressive" else "depth"
    names = ("rgb",) if scheme == "autoregressive" else ("rgb", "caption")
    state = start(targets=(target,), names=names)
    plain = generate(state, steps_for(scheme, target))
    guided = generate(state, steps_for(scheme, target, guidance=(1.0,)), conditions=[names])
    np.testing.assert_array_equal(plain.ids[target], guided.ids[target])


def test_guidance_of_weight_zero_ignores_the_condition():
    rgb = {**tiny.conditions(2)["rgb"], "present": np.zeros(2)}
    guided = generate(start(), steps_for("roar", guidance=0.0, guided=("rgb",)))
    unconditional = generate(start(rgb=rgb), steps_for("roar"))
    np.testing.assert_array_equal(guided.ids["depth"], unconditional.ids["depth"])


def test_guidance_moves_the_result():
    plain = generate(start(), steps_for("roar"))
    guided = generate(start(), steps_for("roar", guidance=8.0, guided=("rgb",)))
    assert (plain.ids["depth"] != guided.ids["depth"]).any()


def test_a_condition_that_is_absent_in_a_row_equals_the_hidden_one():
    rgb = {**tiny.conditions(2)["rgb"], "present": np.array([0, 1])}
    hidden = states.hide(start(), ["rgb"], specs=tiny.SPECS)
    mixed, none = (generate(state, steps_for("maskgit")) for state in (start(rgb=rgb), hidden))
    np.testing.assert_array_equal(mixed.ids["depth"][0], none.ids["depth"][0])


def test_several_conditions_are_weighted_against_each_other_and_results_become_conditions():
    steps = [
        *steps_for("maskgit", "depth", guidance=(2.0, -0.5)),
        *steps_for("roar", "edge", guidance=(2.0, -0.5, 1.0)),
    ]
    groups = [("rgb",), ("caption",)]
    state = start(targets=("depth", "edge"))
    done = generate(state, steps, conditions=groups)
    assert bool(done.known["edge"].all())
    with pytest.raises(ValueError, match=r"'edge': guidance \(2.0, -0.5\), allowed: one weight"):
        generate(
            state, [*steps[:3], *steps_for("roar", "edge", guidance=(2.0, -0.5))], conditions=groups
        )


def test_another_temperature_or_count_of_the_same_shape_compiles_nothing_new():
    generate(start(), steps_for("maskgit", temperature=1.0))
    compiled = stages._write_tokens._cache_size()
    generate(start(), steps_for("maskgit", counts=(1, 4, 1), temperature=0.3), seed=5)
    assert stages._write_tokens._cache_size() == compiled


def test_kernels_are_cast_once_for_a_chain_and_nothing_else_is():
    model, params = tiny.trunk(dtype=jnp.bfloat16)
    cast = trunk.with_ready_kernels(model, params, 1)
    block, before = cast["encoder"]["blocks"], params["encoder"]["blocks"]
    kernel = before["feed_forward"]["fc1"]["kernel"]
    np.testing.assert_array_equal(
        block["feed_forward"]["fc1"]["kernel"], kernel.astype(jnp.bfloat16)
    )
    assert block["self_norm"]["scale"].dtype == jnp.float32
    assert cast["decoder_embedding"] is params["decoder_embedding"]
    assert trunk.with_ready_kernels(model, cast, 1) is cast


def test_layers_of_a_cpu_are_those_of_the_stacks_in_the_same_memory():
    model, params = tiny.trunk()
    ready = trunk.with_ready_kernels(model, params, 1)
    assert trunk.with_ready_kernels(model, ready, 1) is ready
    for stack in ("encoder", "decoder"):
        kernels = params[stack]["blocks"]["feed_forward"]["fc1"]["kernel"]
        kernel = ready[stack]["layers"][0]["feed_forward"]["fc1"]["kernel"]
        assert kernel.unsafe_buffer_pointer() == kernels.unsafe_buffer_pointer()


def test_cast_kernels_are_kept_until_others_are_asked_for():
    (model, params), kept = tiny.trunk(dtype=jnp.bfloat16), trunk.ReadyKernels()
    cast = kept.of(model, params, 1)
    assert kept.of(model, params, 7) is cast
    others = {**params}
    assert kept.of(model, others, 1) is not cast
    assert kept.of(model, params, 1) is not cast


def test_a_gpu_has_kernels_cut_by_heads_for_more_than_few_samples(monkeypatch):
    monkeypatch.setattr(trunk.hardware, "platform", lambda: "gpu")
    (model, params), kept = tiny.trunk(dtype=jnp.bfloat16), trunk.ReadyKernels()
    for num_samples in (trunk.FEW_SAMPLES, trunk.FEW_SAMPLES + 1, trunk.FEW_SAMPLES):
        cast = kept.of(model, params, num_samples)
        heads = cast["encoder"]["blocks"]["self_attention"]["qkv"]
        assert (layers.CUT in heads) == (num_samples > trunk.FEW_SAMPLES)
        assert trunk.with_ready_kernels(model, cast, num_samples) is cast


def test_one_step_of_everything_is_the_parallel_prediction():
    model, params = tiny.trunk()
    state = start()
    done = generate(state, steps_for("maskgit", counts=(9, 0, 0), temperature=0.0))
    probs = parallel.predict(model, params, state, ["depth"])["depth"]
    np.testing.assert_array_equal(done.ids["depth"], jnp.argmax(probs, axis=-1))
    np.testing.assert_allclose(probs.sum(axis=-1), 1.0, rtol=1e-5)
    assert probs.shape == (2, 9, 11)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (Step(target="rgb", scheme="roar", num_tokens=1), "unknown target 'rgb'"),
        (Step(target="edge", scheme="roar", num_tokens=1), "unknown target of the state 'edge'"),
        (Step(target="depth", scheme="autoregressive"), "scheme 'autoregressive', allowed: maskg"),
    ],
)
def test_a_target_that_cannot_be_generated_is_refused(step, message):
    with pytest.raises(ValueError, match=message):
        generate(start(), [step])


def test_a_state_needs_conditions_of_equal_size_and_known_modalities():
    with pytest.raises(ValueError, match="same number of rows"):
        states.create({}, ["depth"], specs=tiny.SPECS)
    with pytest.raises(ValueError, match="unknown modality 'dept'; did you mean 'depth'"):
        states.create(tiny.conditions(1), ["dept"], specs=tiny.SPECS)


def test_nothing_in_a_generation_step_is_a_constant_of_the_parameters():
    # the parameters are arguments of the compiled program, so new ones need no new program
    _, params = tiny.trunk()
    generate(start(), steps_for("maskgit"))
    compiled = stages._write_tokens._cache_size()
    generate(start(), steps_for("maskgit"), params=jax.tree.map(lambda x: x * 0.5, params))
    assert stages._write_tokens._cache_size() == compiled
