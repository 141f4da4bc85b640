"""Masking decisions equal those of the published code when it is given the same random draws."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import mixtures
from fourm_jax.modalities import registry
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.modalities.vocabulary import PUBLISHED
from fourm_jax.ops import attention, budgets, masking, slots, span_masks
from fourm_jax.ops import mixture as mixture_lib
from tests.ops import masking_goldens

MIXTURES = {
    "mod7_a0.5": mixtures.mod7_rgb2all,
    "mod7_capbias": mixtures.mod7_capbias,
    "mod21_capT5bias": mixtures.mod21,
}


@pytest.fixture(scope="module", params=["shipped", "full"])
def goldens(request):
    return masking_goldens.load(full=request.param == "full")


@jax.jit
def entries(ids, masked, length, budget, chosen, first_sentinel):
    """Both token lists of one text, padded; first_sentinel -1: vectors."""
    spans = span_masks.find_spans(masked[None], length[None])
    start, size = span_masks.choose_window(spans, budget[None], chosen[None])
    place = jnp.arange(2 * len(ids) + 1)
    row = jnp.zeros_like(place)
    first = first_sentinel[None]
    shown = span_masks.input_entry(spans, ids[None], first, row, place)
    asked = span_masks.target_entry(spans, ids[None], first, row, place + start[0])
    return shown, spans.num_inputs[0], asked, size[0]


def token_lists(ids, masked, budget=1000, chosen=0, first_sentinel=None):
    """Masked text and (window of the) target as lists of ids."""
    size = 304  # one compilation for all cases
    first = PUBLISHED.sentinel_id(1) if first_sentinel is None else first_sentinel
    pad = np.zeros(size, np.int32)
    pad[: len(ids)] = ids
    mask = np.zeros(size, bool)
    mask[: len(ids)] = masked
    shown, num_shown, asked, num_asked = entries(
        pad, mask, np.int32(len(ids)), np.int32(budget), np.int32(chosen), np.int32(first)
    )
    return np.asarray(shown)[:num_shown].tolist(), np.asarray(asked)[:num_asked].tolist()


def test_masked_tokens_become_sentinels_and_targets(goldens):
    for case in goldens[0]["simple_span_masking"]:
        if case["sequence"]:  # an empty list cannot occur: every text has its [EOS]
            lists = token_lists(case["sequence"], case["masked"])
            assert lists == (case["input"], case["target"])


def test_masked_chunks_become_sentinels_and_targets(goldens):
    for case in goldens[0]["chunk_span_masking"]:
        ids = [i for chunk in case["chunks"] for i in chunk]
        masked = [m for m, chunk in zip(case["masked"], case["chunks"], strict=True) for _ in chunk]
        assert token_lists(ids, masked) == (case["input"], case["target"])


def test_texts_are_cut_to_their_budgets_at_sentinels(goldens):
    for case in goldens[0]["sequence_mask"]:
        budget = 1000 if case["target_budget"] is None else case["target_budget"]
        shown, asked = token_lists(case["ids"], case["masked"], budget, case["chosen"])
        assert (shown if case["input_budget"] else []) == case["inputs"]
        assert asked == case["targets"]


def test_the_random_sentinel_is_never_the_last_of_several(goldens):
    for case in goldens[0]["sequence_mask"]:
        if case["num_choices"] is not None:
            masked = np.array(case["masked"], bool)[None]
            spans = span_masks.find_spans(masked, np.array([masked.size]))
            assert max(1, int(spans.run[0, -1])) == case["num_choices"]


def test_masked_vectors_become_one_zero_vector(goldens):
    for case in goldens[0]["embedding_mask"]:
        index = list(range(1, len(case["masked"]) + 1))
        shown, _ = token_lists(index, case["masked"], first_sentinel=-1)
        assert (shown if case["budget"] else []) == case["inputs"]


def test_budgets_follow_the_dirichlet_draws(goldens):
    for case in goldens[0]["token_budgets"]:
        most, is_image = np.array(case["max_tokens"]), np.array(case["is_img"])
        granted = {}
        for side in ("input", "target"):
            (_, share), *rest = case[f"{side}_draws"]
            extras = np.array([i for _, choices in rest for i in choices], np.int32)
            capacity = most - is_image * granted["input"] if side == "target" else most
            split = budgets.split(np.array(share, np.float32), case["num_tokens"], extras)
            granted[side] = np.minimum(split, capacity)
            np.testing.assert_array_equal(granted[side], case[f"{side}_budget"])


def test_grids_take_inputs_first_and_targets_next_in_random_order(goldens):
    none = np.zeros(1, np.int32)
    spans = span_masks.find_spans(np.zeros((1, 1), bool), none)
    for case in goldens[0]["image_mask"]:
        size = len(case["order"])
        order = jnp.array(np.pad(case["order"], (0, 256 - size)))
        spec = ModalitySpec(name="tok", kind="grid", vocab_size=300, grid=(16, 16))
        layout = slots.layout([spec], ["tok"], ["tok"], PUBLISHED)
        batch = {"tok": {"ids": np.arange(256)[None] + 50, "present": np.array([True])}}
        sample = jax.tree.map(lambda x: x[0], slots.stack(batch, layout))
        shown_budget, asked_budget = case["budgets"]
        if asked_budget is None:  # no target range: all that is not shown
            asked_budget = size - shown_budget
        plan = slots.Plan(
            spans, none, none, none, np.array([shown_budget]), np.array([asked_budget])
        )
        place = functools.partial(lambda order, row, rank: order[rank], order)
        shown = slots.input_slots(plan, sample, layout, 256, place)
        asked = slots.target_slots(plan, sample, layout, 256, place)
        for side, key in ((shown, "inputs"), (asked, "targets")):
            valid = np.asarray(side.valid)
            positions = np.asarray(side.position)[valid]
            assert sorted(positions) == case[key]
            np.testing.assert_array_equal(np.asarray(side.id)[valid], positions + 50)
        assert not asked.order.any()  # all cells of a grid see each other


def test_order_says_which_targets_see_each_other(goldens):
    """A compressed entry k > 0 opens a group of k slots that see each other and all before."""
    cases = [
        case
        for case in goldens[0]["adapt_decoder_attention_mask"]
        if case["decoder_sep_mask"] and not case["decoder_causal_mask"]
        if case["compressed"][0] > 0  # otherwise leading slots see nobody: no TokenBatch does that
    ]
    assert len(cases) >= 4
    for case in cases:
        order = np.cumsum(np.array(case["compressed"]) > 0)[None]
        segment = np.array(case["mod_mask"])[None]
        visible = attention.Visibility(segment, segment, order, order).mask()[0, 0]
        np.testing.assert_array_equal(~visible, np.array(case["masked"], bool))


def test_fixed_tokens_show_and_ask_for_whole_modalities(goldens):
    case = goldens[0]["transfer"]
    specs = registry.resolve("fourm", registry.MOD7_IN)
    batch = {}
    for spec in specs:
        if spec.kind == "sequence":
            ids = np.zeros((1, spec.max_tokens), np.uint16)
            ids[0, : len(case["ids"][spec.name])] = case["ids"][spec.name]
            length = np.array([len(case["ids"][spec.name])])
            batch[spec.name] = {"ids": ids, "length": length}
        elif spec.kind == "pixels":
            batch[spec.name] = {"pixels": np.zeros((1, 2, 2, 3)), "present": np.array([True])}
        else:
            batch[spec.name] = {"ids": np.zeros((1, 196), int), "present": np.array([True])}
    tokens = masking.fixed_tokens(
        batch, specs=specs, inputs=case["inputs"], outputs=case["outputs"]
    )
    inputs, targets = (
        jax.tree.map(lambda x: np.asarray(x[0]), t) for t in (tokens.inputs, tokens.targets)
    )
    for i, spec in enumerate(specs):
        is_text = spec.kind == "sequence"
        if spec.name in case["inputs"]:
            mine = inputs.valid & (inputs.modality == i)
            shown = (inputs.id if is_text else inputs.position)[mine]
            assert shown.tolist() == case["shown"][spec.name]
        if spec.name in case["outputs"]:
            mine = targets.valid & (targets.modality == i)
            if is_text:  # the first entry is only ever an input, the last one only a target
                assert targets.input_id[mine].tolist() == case["asked"][spec.name][:-1]
                assert targets.id[mine].tolist() == case["asked"][spec.name][1:]
            else:
                assert targets.position[mine].tolist() == case["asked"][spec.name]


@pytest.mark.parametrize("config", sorted(MIXTURES))
def test_published_mixtures_have_the_recorded_alphas(goldens, config):
    recorded, ours = goldens[1][config], MIXTURES[config]()
    specs = registry.resolve("fourm", recorded["modalities"])
    mixture = mixture_lib.make_mixture(specs, [ours])
    for i, name in enumerate(recorded["modalities"]):
        table = recorded["alphas"][name]
        np.testing.assert_allclose(mixture.input_alphas[0, :, i], table["input_alphas"])
        np.testing.assert_allclose(mixture.target_alphas[0, :, i], table["target_alphas"])
        keep = table["keep"] or ["random"] * len(table["input_alphas"])
        assert [mixture_lib.KEEP_SCHEMES[k] for k in mixture.keep[0, :, i]] == keep
    weights = recorded["sampling_weights"] or [1.0] * len(mixture.weights[0])
    np.testing.assert_allclose(mixture.weights[0], weights)
    np.testing.assert_array_equal(mixture.input_range[0, 0], recorded["input_tokens_range"])
    np.testing.assert_array_equal(mixture.target_range[0, 0], recorded["target_tokens_range"])
