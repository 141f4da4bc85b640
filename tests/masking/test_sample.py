"""What masking promises for every sample, whatever is drawn."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fourm_jax import contracts
from fourm_jax.generate import fill_spans
from fourm_jax.masking import mixture as mixture_lib
from fourm_jax.masking import sample as masking
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.modalities.vocabulary import PUBLISHED, TextVocabulary

SPECS = (
    ModalitySpec(name="rgb", kind="pixels", grid=(4, 4), patch_size=2, num_channels=3),
    ModalitySpec(name="depth", kind="grid", vocab_size=100, grid=(4, 4)),
    ModalitySpec(name="pairs", kind="grid", vocab_size=100, grid=(2, 5), codes_per_position=2),
    ModalitySpec(name="vector", kind="global", vocab_size=50, max_tokens=7),
    ModalitySpec(name="caption", kind="sequence", vocab_size=5000, max_tokens=12),
    ModalitySpec(name="metadata", kind="sequence", vocab_size=5000, max_tokens=9, chunked=True),
    ModalitySpec(name="t5", kind="embedding", max_tokens=6, embedding_dim=3),
)
NAMES = tuple(spec.name for spec in SPECS)
OUTPUTS = tuple(spec.name for spec in SPECS if spec.is_token)
CELLS = ("rgb", "depth", "pairs", "vector")
SIZES = {spec.name: spec.num_tokens for spec in SPECS}
BATCH = 96
CALL = {"specs": SPECS, "inputs": NAMES, "outputs": OUTPUTS, "num_inputs": 24, "num_targets": 24}
MIXTURE = {
    "input_alphas": {name: [0.05, 0.5, 5.0] for name in NAMES},
    "target_alphas": {name: [0.05, 0.5, 5.0] for name in OUTPUTS},
    "keep": {"metadata": "binary", "caption": ["random", "all", "random"]},
}


def make_batch(seed=0, size=BATCH):
    """Random tokens; every modality is absent from about a fifth of the samples, rgb from none."""
    rng = np.random.default_rng(seed)
    batch = {"mixture": np.zeros(size, np.int32)}
    for spec in SPECS:
        here = (rng.random(size) < 0.8) | (spec.name == "rgb")
        length = rng.integers(1, spec.max_tokens + 1, size) * here
        if spec.kind == "sequence":
            # Distinct ids above everything reserved, so that places can be recognized.
            ids = 4300 + np.tile(np.arange(spec.max_tokens), (size, 1))
            chunk = np.tile(np.arange(spec.max_tokens) // 2, (size, 1))
            batch[spec.name] = {"ids": ids, "length": length, "chunk": chunk}
        elif spec.kind == "embedding":
            vectors = rng.normal(size=(size, spec.max_tokens, spec.embedding_dim))
            batch[spec.name] = {"embeddings": vectors, "length": length}
        elif spec.kind == "pixels":
            batch[spec.name] = {"pixels": np.zeros((size, 8, 8, 3), np.uint8), "present": here}
        else:
            codes = (spec.codes_per_position,) if spec.codes_per_position > 1 else ()
            ids = rng.integers(0, spec.vocab_size, (size, spec.max_tokens, *codes))
            batch[spec.name] = {"ids": ids, "present": here}
    return batch


sample = jax.jit(functools.partial(masking.sample_tokens, **CALL), static_argnames="budget")


@pytest.fixture(scope="module", params=["fill", "reference"])
def drawn(request):
    """One masked batch per budget: name of the budget, batch, inputs and targets as numpy."""
    batch = make_batch()
    mixture = three(MIXTURE)
    tokens = sample(jax.random.key(3), batch, mixture, budget=request.param)
    return request.param, batch, *jax.tree.map(np.asarray, (tokens.inputs, tokens.targets))


def three(mixture):
    """A mixture of three components, so that all tests share one compilation."""
    return mixture_lib.make_mixture(SPECS, [{"weights": [1.0, 1.0, 1.0], **mixture}])


def chosen(side, row, name):
    """Slots of one modality in one sample."""
    return side.valid[row] & (side.modality[row] == NAMES.index(name))


def test_inputs_and_targets_of_a_grid_are_disjoint(drawn):
    _, _, inputs, targets = drawn
    for row in range(BATCH):
        for name in CELLS:
            shown = inputs.position[row][chosen(inputs, row, name)]
            asked = targets.position[row][chosen(targets, row, name)]
            both = np.concatenate([shown, asked])
            assert len(np.unique(both)) == len(both)
            assert (both >= 0).all() and (both < SIZES[name]).all()


def test_cells_carry_their_own_ids_and_pixels_carry_zero(drawn):
    _, batch, inputs, targets = drawn
    for row in range(BATCH):
        for name in CELLS[1:]:
            ids = batch[name]["ids"][row].reshape(-1)
            for side in (inputs, targets):
                mine = chosen(side, row, name)
                np.testing.assert_array_equal(side.id[row][mine], ids[side.position[row][mine]])
        assert not inputs.id[row][chosen(inputs, row, "rgb")].any()


def test_an_absent_modality_and_padding_are_never_chosen(drawn):
    _, batch, inputs, targets = drawn
    for row in range(BATCH):
        for name in NAMES:
            entry = batch[name]
            here = entry["present"][row] if name in CELLS else entry["length"][row] > 0
            if not here:
                assert not chosen(inputs, row, name).any()
                assert not chosen(targets, row, name).any()
        for name in ("caption", "metadata"):
            for side in (inputs, targets):
                ids = side.id[row][chosen(side, row, name)]
                assert (ids < 4300 + batch[name]["length"][row]).all()


def test_pixels_and_embeddings_are_never_targets(drawn):
    _, _, _, targets = drawn
    assert not (targets.valid & np.isin(targets.modality, [0, 6])).any()


def test_valid_slots_come_first_and_empty_slots_are_zero(drawn):
    _, _, inputs, targets = drawn
    for side in (inputs, targets):
        assert (np.diff(side.valid.astype(int), axis=1) <= 0).all()
        for field in ("modality", "position", "id"):
            assert not getattr(side, field)[~side.valid].any()


def test_tokens_per_sample_stay_in_the_range_of_the_component():
    ranges = {"input_range": (3, 7), "target_range": [(2, 2), (5, 5), (24, 99)]}
    mixture = three({**MIXTURE, **ranges})
    shown, asked = {}, {}
    for budget in masking.BUDGETS:
        tokens = sample(jax.random.key(0), make_batch(), mixture, budget=budget)
        shown[budget], asked[budget] = (
            set(np.asarray(side.valid.sum(1)).tolist()) for side in (tokens.inputs, tokens.targets)
        )
    assert shown["fill"] == {3, 4, 5, 6, 7} and max(shown["reference"]) <= 7
    assert {2, 5, 24} <= asked["fill"] and max(asked["reference"]) <= 24


def test_sequence_positions_and_order_count_up_and_grid_order_is_flat(drawn):
    _, _, inputs, targets = drawn
    for row in range(BATCH):
        for name in ("caption", "metadata", "t5"):
            shown = chosen(inputs, row, name)
            dense = contracts.dense_positions(shown[None])[0]
            np.testing.assert_array_equal(inputs.position[row][shown], dense[shown])
            mine = chosen(targets, row, name)
            np.testing.assert_array_equal(targets.position[row][mine], np.arange(mine.sum()))
            np.testing.assert_array_equal(targets.order[row][mine], np.arange(mine.sum()))
        for name in CELLS:
            assert not targets.order[row][chosen(targets, row, name)].any()


def test_text_targets_begin_at_a_sentinel_and_are_shifted_by_one(drawn):
    _, _, _, targets = drawn
    sentinel = np.asarray(fill_spans.is_sentinel(targets.input_id, PUBLISHED))
    for row in range(BATCH):
        for name in ("caption", "metadata"):
            mine = np.flatnonzero(chosen(targets, row, name))
            if len(mine):
                assert sentinel[row, mine[0]]
                np.testing.assert_array_equal(
                    targets.input_id[row][mine[1:]], targets.id[row][mine[:-1]]
                )


def test_spans_put_back_at_their_sentinels_give_the_text():
    """With slots for everything, input and target together are the whole text."""
    batch = make_batch()
    mixture = three({"input_alphas": {"caption": 1.0}, "target_alphas": {"caption": 1.0}})
    tokens = sample(jax.random.key(1), batch, mixture, budget="fill")
    i = NAMES.index("caption")
    shown = tokens.inputs.valid & (tokens.inputs.modality == i)
    asked = tokens.targets.valid & (tokens.targets.modality == i)
    # Texts come first; the first entry of a target is the input of its first slot.
    generated = jnp.concatenate([tokens.targets.input_id[:, :1], tokens.targets.id], axis=1)
    written = jnp.concatenate([asked[:, :1], asked], axis=1)
    merged, known = fill_spans.merge_spans(
        tokens.inputs.id, shown, generated, written, length=12, vocabulary=PUBLISHED
    )
    length = batch["caption"]["length"]
    np.testing.assert_array_equal(known.sum(1), length)
    expected = np.where(np.arange(12) < length[:, None], batch["caption"]["ids"], 0)
    np.testing.assert_array_equal(merged, expected)
    assert len(np.unique(shown.sum(1) - length)) > 3  # and not because all was shown


def test_chunks_are_masked_as_wholes(drawn):
    _, batch, inputs, _ = drawn
    for row in range(BATCH):
        shown = set(inputs.id[row][chosen(inputs, row, "metadata")].tolist())
        length = batch["metadata"]["length"][row]
        for first in range(0, length - 1, 2):
            assert ((4300 + first) in shown) == ((4301 + first) in shown)


def test_embeddings_name_their_vectors_and_zero_for_a_masked_span(drawn):
    _, batch, inputs, _ = drawn
    masked = 0
    for row in range(BATCH):
        ids = inputs.id[row][chosen(inputs, row, "t5")]
        vectors = ids[ids > 0]
        assert (np.diff(vectors) > 0).all() and (vectors <= batch["t5"]["length"][row]).all()
        assert not ((ids[1:] == 0) & (ids[:-1] == 0)).any()  # one zero vector per span
        masked += (ids == 0).sum()
    assert masked > 0


def test_the_same_key_gives_the_same_masks_and_another_key_others():
    batch, mixture = make_batch(), three(MIXTURE)
    one, again, other = (
        sample(jax.random.key(seed), batch, mixture, budget="fill").inputs.id for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_evaluation_masks_depend_on_the_record_and_not_on_its_batch():
    batch, mixture = make_batch(), three(MIXTURE)
    order = np.random.default_rng(0).permutation(BATCH)
    keys = masking.evaluation_keys(jnp.arange(BATCH) + 1000)
    whole = sample(keys, batch, mixture, budget="fill")
    shuffled = jax.tree.map(lambda x: x[order], batch)
    moved = sample(masking.evaluation_keys(order + 1000), shuffled, mixture, budget="fill")
    for a, b in zip(jax.tree.leaves(whole.targets), jax.tree.leaves(moved.targets), strict=True):
        np.testing.assert_array_equal(a[order], b)


def test_other_values_of_a_mixture_need_no_new_compilation():
    batch = make_batch()
    sample(jax.random.key(0), batch, three(MIXTURE), budget="fill")
    before = sample._cache_size()
    other = {**MIXTURE, "target_alphas": {"caption": 1.0}, "weights": [1.0, 0.0, 3.0]}
    sample(jax.random.key(0), batch, three(other), budget="fill")
    assert sample._cache_size() == before


def test_each_sample_follows_the_mixture_of_its_data_set():
    mixture = mixture_lib.make_mixture(
        SPECS,
        [
            {"input_alphas": {"rgb": 1.0}, "target_alphas": {"depth": [1.0, 1.0]}},
            {"input_alphas": {"depth": 1.0}, "target_alphas": {"vector": 1.0}},
        ],
    )
    batch = make_batch()
    batch["mixture"] = np.arange(BATCH) % 2
    tokens = sample(jax.random.key(0), batch, mixture, budget="reference")
    for side, allowed in ((tokens.inputs, [0, 1]), (tokens.targets, [1, 3])):
        for row in range(BATCH):
            assert set(side.modality[row][side.valid[row]].tolist()) <= {allowed[row % 2]}


def test_fill_gives_what_short_and_absent_modalities_cannot_use_to_others():
    mixture = three(MIXTURE)
    tokens = sample(jax.random.key(5), make_batch(1), mixture, budget="fill")
    batch = make_batch(1)
    cells = sum(SIZES[name] * batch[name]["present"] for name in CELLS)
    shown, asked = (np.asarray(s.valid.sum(1)) for s in (tokens.inputs, tokens.targets))
    np.testing.assert_array_equal(shown[cells >= 24], 24)
    free = cells - 16 * batch["rgb"]["present"] >= 48  # enough cells for both sides but pixels
    np.testing.assert_array_equal(asked[free], 24)


def test_fill_keeps_a_part_of_a_small_sample_to_be_predicted():
    """A picture of 16 tokens and its caption: 24 slots for inputs must not take all of them."""
    batch = make_batch()
    for name in NAMES:
        if name in ("depth", "caption"):
            continue
        for key in batch[name].keys() & {"present", "length"}:
            batch[name][key] = np.zeros_like(batch[name][key])
    batch["depth"]["present"] = np.ones_like(batch["depth"]["present"])
    tokens = sample(jax.random.key(0), batch, three(MIXTURE), budget="fill")
    shown, asked = (
        np.asarray((side.valid & (side.modality == 1)).sum(1))
        for side in (tokens.inputs, tokens.targets)
    )
    assert (shown <= 8).all() and (shown + asked == 16).all()


def test_fill_shows_nothing_but_rgb_while_rgb_suffices():
    """A modality without a share (alpha 0) gets slots only when nobody else can use them."""
    alone = {"input_alphas": {"rgb": 1.0}, "target_alphas": {"depth": 1.0, "caption": 1.0}}
    mixture = three({**alone, "input_range": (16, 16)})
    tokens = sample(jax.random.key(0), make_batch(), mixture, budget="fill")
    assert not np.asarray(tokens.inputs.modality).any()
    np.testing.assert_array_equal(tokens.inputs.valid.sum(1), 16)
    mixture = three(alone)  # 24 slots, 16 patches
    tokens = sample(jax.random.key(0), make_batch(), mixture, budget="fill")
    np.testing.assert_array_equal((tokens.inputs.valid & (tokens.inputs.modality == 0)).sum(1), 16)
    assert not np.isin(tokens.inputs.modality, [4, 5, 6]).any()  # texts are not the last resort


def test_without_sharing_the_leftover_modalities_without_a_share_stay_out_even_of_empty_slots():
    """24 slots, 16 patches and no other input with an alpha: 8 stay empty; the same for targets."""
    batch = make_batch()
    mixture = {
        "input_alphas": {"rgb": 1.0},
        "target_alphas": {"depth": 1.0},
        "share_leftover": False,
    }
    tokens = sample(jax.random.key(0), batch, three(mixture), budget="fill")
    for side, index, name in ((tokens.inputs, 0, "rgb"), (tokens.targets, 1, "depth")):
        assert set(side.modality[side.valid].tolist()) == {index}
        np.testing.assert_array_equal(side.valid.sum(1), 16 * batch[name]["present"])


def test_sharing_the_leftover_may_differ_between_components():
    alphas = {"input_alphas": {"rgb": 1.0}, "target_alphas": {"depth": 1.0}}
    mixture = three({**alphas, "weights": [1.0, 1.0, 1.0], "share_leftover": (True, False, False)})
    tokens = sample(jax.random.key(0), make_batch(), mixture, budget="fill")
    alone = (tokens.inputs.valid == (tokens.inputs.modality == 0) & tokens.inputs.valid).all(1)
    np.testing.assert_array_equal(tokens.inputs.valid.sum(1)[alone], 16)
    assert 0.4 < alone.mean() < 0.9  # two of three components


def test_repeated_rows_are_masked_differently():
    batch = masking.repeat(make_batch(size=BATCH // 3), 3)
    assert batch["caption"]["ids"].shape == (BATCH, 12)
    np.testing.assert_array_equal(batch["depth"]["ids"][0], batch["depth"]["ids"][2])
    mixture = three(MIXTURE)
    tokens = sample(jax.random.key(0), batch, mixture, budget="fill")
    assert (tokens.targets.id[0] != tokens.targets.id[1]).any()


def test_only_texts_leave_slots_empty_rather_than_fail():
    batch = make_batch()
    for name in CELLS:
        batch[name]["present"] = np.zeros(BATCH, bool)
    mixture = three(MIXTURE)
    tokens = sample(jax.random.key(0), batch, mixture, budget="fill")
    assert not np.isin(tokens.inputs.modality[tokens.inputs.valid], [0, 1, 2, 3]).any()
    assert 0 < tokens.inputs.valid.mean() < 1


def test_fixed_tokens_are_in_reading_order_and_know_padding():
    batch = make_batch()
    fixed = functools.partial(
        masking.fixed_tokens,
        specs=SPECS,
        inputs=["depth", "caption", "t5"],
        outputs=["vector", "metadata"],
    )
    tokens = jax.jit(fixed)(batch)
    inputs, targets = jax.tree.map(np.asarray, (tokens.inputs, tokens.targets))
    assert inputs.valid.shape[1] == 16 + 12 + 6 and targets.valid.shape[1] == 7 + 9 + 1
    for row in range(BATCH):
        length = batch["caption"]["length"][row]
        assert inputs.id[row][chosen(inputs, row, "caption")].tolist() == [
            4300 + i for i in range(length)
        ]
        length = batch["metadata"]["length"][row]
        ids = targets.id[row][chosen(targets, row, "metadata")].tolist()
        assert ids == ([4300 + i for i in range(length)] + [6] if length else [])
        count = 16 * batch["depth"]["present"][row]
        assert inputs.position[row][chosen(inputs, row, "depth")].tolist() == list(range(count))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": "full"}, r"budget 'full', allowed"),
        ({"inputs": ("rgb", "dpeth")}, r"'dpeth'; did you mean 'depth'"),
        ({"outputs": ("t5",)}, r"'t5' \(embedding\) has no vocabulary"),
        ({"vocabulary": TextVocabulary(num_sentinels=5)}, r"need 7 sentinels"),
    ],
)
def test_bad_arguments_are_named(change, message):
    mixture = three(MIXTURE)
    with pytest.raises(ValueError, match=message):
        masking.sample_tokens(jax.random.key(0), make_batch(), mixture, **{**CALL, **change})


def test_a_batch_without_a_modality_of_the_run_is_refused():
    batch = make_batch()
    del batch["depth"]
    mixture = three(MIXTURE)
    with pytest.raises(ValueError, match="no entry for modality 'depth'"):
        masking.sample_tokens(jax.random.key(0), batch, mixture, **CALL)


def test_fixed_tokens_refuse_too_few_slots_and_both_sides_at_once():
    with pytest.raises(ValueError, match="num_inputs 15: these modalities can need 16"):
        masking.fixed_tokens(
            make_batch(), specs=SPECS, inputs=["depth"], outputs=["vector"], num_inputs=15
        )
    with pytest.raises(ValueError, match=r"\['depth'\] cannot be inputs and outputs"):
        masking.fixed_tokens(make_batch(), specs=SPECS, inputs=["depth"], outputs=["depth"])


@pytest.mark.parametrize(
    ("mixture", "message"),
    [
        ({"input_alpha": {}}, "did you mean 'input_alphas'"),
        ({"input_alphas": {"dpeth": 1.0}}, "did you mean 'depth'"),
        ({"input_alphas": {"rgb": [1.0, 2.0], "depth": [1.0]}}, "1 components, others have 2"),
        ({"target_alphas": {"depth": -1.0}}, "-1.0, must be >= 0"),
        ({"keep": {"caption": "some"}}, "'some', allowed"),
        ({"weights": [0.0, 0.0]}, "positive sum"),
        ({"input_range": (5, 3)}, "fewest <= most"),
        ({"input_range": [(1, 3), (1, 3)]}, r"need one \(fewest, most\), or one for each of 1"),
        ({"target_range": [(1, 3), 4]}, r"target_range \[\(1, 3\), 4\]: need one"),
        ({"share_leftover": (True, False, True)}, "need one value, or one for each of 1"),
    ],
)
def test_a_mixture_with_a_mistake_names_it(mixture, message):
    with pytest.raises(ValueError, match=message):
        mixture_lib.make_mixture(SPECS, [mixture])
