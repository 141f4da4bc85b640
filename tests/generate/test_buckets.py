"""Slots follow what is known and open; results do not depend on how many there are."""

import jax.numpy as jnp
import numpy as np
import pytest

from fourm_jax.generate import buckets, chain, stages
from fourm_jax.generate import state as states
from fourm_jax.generate.generator import Generator
from fourm_jax.generate.schedule import Step
from tests.generate import tiny


@pytest.mark.parametrize(
    ("count", "size", "expected"),
    [(0, 196, 0), (1, 196, 66), (66, 196, 66), (67, 196, 132), (-3, 196, 0), (3, 9, 9), (0, 9, 0)],
)
def test_a_count_is_rounded_up_to_thirds_of_the_size(count, size, expected):
    assert buckets.bucket(count, size) == expected


def test_targets_to_come_take_no_slot_and_hidden_ones_keep_one():
    state = states.create(tiny.conditions(2, ("rgb",)), ["depth", "caption"], specs=tiny.SPECS)
    known = buckets.known_range(state)
    assert known == {"rgb": (6, 6), "depth": (0, 0), "caption": (1, 1)}
    widths = buckets.input_widths(state, known, written={}, hidden={})
    assert dict(widths) == {"rgb": 6, "depth": 0, "caption": 1}
    widths = buckets.input_widths(state, known, written={"depth": 4}, hidden={})
    assert dict(widths)["depth"] == 9
    assert states.input_tokens(state, tiny.SPECS, widths).id.shape == (2, 6 + 9 + 1)
    absent = {"caption": {"ids": np.zeros((2, 5)), "length": np.zeros(2)}}
    state = states.create({**tiny.conditions(2, ("rgb",)), **absent}, [], specs=tiny.SPECS)
    known = buckets.known_range(state)
    assert (
        dict(buckets.input_widths(state, known, written={}, hidden={"caption": 1}))["caption"] == 5
    )


def test_a_branch_of_guidance_has_no_slots_for_pictures_that_it_does_not_see():
    state = states.create(tiny.conditions(2, ("rgb",)), ["depth"], specs=tiny.SPECS)
    known = buckets.known_range(state)
    blind = buckets.input_widths(state, known, written={"depth": 4}, hidden={"rgb": 0})
    assert dict(blind) == {"rgb": 0, "depth": 9}
    seeing = buckets.input_widths(state, known, written={}, hidden={})
    assert dict(buckets.common([blind, seeing])) == {"rgb": 6, "depth": 9}
    empty = buckets.input_widths(state, known, written={}, hidden={"rgb": 0})
    assert dict(empty) == {"rgb": 6, "depth": 0}  # one slot at least


def test_the_known_tokens_come_first_and_keep_their_positions():
    known = np.zeros((1, 9), bool)
    known[0, [2, 5, 7]] = True
    entry = {"ids": np.arange(9)[None], "known": known}
    state = states.create({"depth": entry}, [], specs=tiny.SPECS)
    tokens = states.input_tokens(state, tiny.SPECS, (("depth", 4),))
    assert tokens.position[0, :3].tolist() == tokens.id[0, :3].tolist() == [2, 5, 7]
    assert tokens.valid.tolist() == [[True, True, True, False]]


def test_packed_tokens_of_all_modalities_come_before_all_empty_slots():
    grids = {
        "depth": {"ids": np.arange(9)[None], "known": np.arange(9)[None] == 4},
        "edge": {"ids": np.arange(9)[None] % 7, "known": np.arange(9)[None] > 6},
    }
    state = states.create(grids, [], specs=tiny.SPECS)
    tokens = states.input_tokens(state, tiny.SPECS, (("depth", 2), ("edge", 3)), packed=True)
    assert tokens.packed
    assert tokens.modality[0, :3].tolist() == [1, 2, 2]
    assert tokens.position[0, :3].tolist() == [4, 7, 8]
    assert tokens.valid.tolist() == [[True, True, True, False, False]]


@pytest.mark.parametrize("scheme", ["maskgit", "roar"])
def test_the_number_of_slots_does_not_change_what_is_generated(scheme, monkeypatch):
    model, params = tiny.trunk()
    steps = [
        Step(target="depth", scheme=scheme, num_tokens=count, guided=("rgb",), guidance=2.0)
        for count in (2, 4, 3)
    ]
    steps.append(Step(target="caption", scheme="autoregressive"))

    def generate():
        names = ["depth", "edge", "caption"]
        state = states.create(tiny.conditions(2, ("rgb",)), names, specs=tiny.SPECS)
        return chain.run(model, params, state, steps, keys=chain.row_keys(0, jnp.arange(2)))

    followed = generate()
    monkeypatch.setattr(buckets, "bucket", lambda count, size: size)
    whole = generate()
    for name in ("depth", "caption"):
        np.testing.assert_array_equal(followed.ids[name], whole.ids[name])


def test_in_painting_has_room_for_the_row_with_most_and_the_row_with_fewest_known():
    model, params = tiny.trunk()
    known = np.zeros((2, 9), bool)
    known[0, :7] = True
    entry = {"ids": np.full((2, 9), 3), "known": known}
    conditions = {**tiny.conditions(2, ("rgb",)), "depth": entry}
    state = states.create(conditions, [], specs=tiny.SPECS)
    steps = [Step(target="depth", scheme="maskgit", num_tokens=count) for count in (5, 4)]
    done = chain.run(model, params, state, steps, keys=chain.row_keys(0, jnp.arange(2)))
    assert bool(done.known["depth"].all())
    assert done.ids["depth"][0, :7].tolist() == [3] * 7


def test_a_generator_of_few_programs_writes_the_same_and_compiles_nothing_for_other_conditions():
    plain = Generator(*tiny.trunk())
    few = plain.of_few_programs()

    def compiled():
        return stages._write_tokens._cache_size(), stages._write_sequence._cache_size()

    programs = []
    for given in ("rgb", "edge"):
        entries = tiny.conditions(2, (given,))
        ids = few.generate(entries, ["depth", "caption"]).ids
        programs.append(compiled())
        expected = plain.generate(entries, ["depth", "caption"])
        np.testing.assert_array_equal(ids["depth"], expected.ids["depth"])
        np.testing.assert_array_equal(
            ids["caption"][:, : expected.ids["caption"].shape[1]], expected.ids["caption"]
        )
        np.testing.assert_allclose(
            few.predict(entries, ["vector"])["vector"],
            plain.predict(entries, ["vector"])["vector"],
            rtol=1e-5,
            atol=1e-6,
        )
    plain_programs = (1, 1)  # of the plain one, for other conditions
    assert tuple(np.subtract(programs[1], programs[0])) == plain_programs
