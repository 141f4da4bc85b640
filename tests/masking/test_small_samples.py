"""How a sample of fewer tokens than slots is divided between inputs and targets."""

import jax
import numpy as np

from fourm_jax.masking import mixture as mixture_lib
from fourm_jax.masking import sample as masking
from fourm_jax.modalities.spec import ModalitySpec

BATCH = 200
TEXT = ModalitySpec(name="text", kind="sequence", vocab_size=5000, max_tokens=40)


def vector(name, size):
    return ModalitySpec(name=name, kind="global", vocab_size=50, max_tokens=size)


def divided(specs, mixture, *, num_inputs, num_targets, inputs=None):
    """{modality: (tokens seen, tokens wanted) of every sample}, where all have everything."""
    batch = {}
    for spec in specs:
        ids = np.full((BATCH, spec.max_tokens), 1)
        batch[spec.name] = {"ids": ids, "present": np.ones(BATCH, bool)}
        if spec.kind == "sequence":
            batch[spec.name] = {"ids": ids, "length": np.full(BATCH, 40), "chunk": ids}
    names = tuple(spec.name for spec in specs)
    tokens = masking.sample_tokens(
        jax.random.key(0),
        batch,
        mixture_lib.make_mixture(specs, [mixture]),
        specs=specs,
        inputs=inputs or names,
        outputs=names,
        num_inputs=num_inputs,
        num_targets=num_targets,
    )
    return {
        name: tuple(
            np.asarray((side.valid & (side.modality == number)).sum(1))
            for side in (tokens.inputs, tokens.targets)
        )
        for number, name in enumerate(names)
    }


def test_a_vector_of_one_code_is_seen_as_often_as_any_other_cell():
    """17 cells for 16 + 16 slots: half of the samples see the label, the others predict it."""
    shares = {"picture": 1.0, "label": 1.0}
    found = divided(
        (vector("picture", 16), vector("label", 1)),
        {"input_alphas": shares, "target_alphas": shares},
        num_inputs=16,
        num_targets=16,
    )
    seen, wanted = found["label"]
    assert 0.4 < seen.mean() < 0.6
    np.testing.assert_array_equal(seen + wanted, 1)
    np.testing.assert_array_equal(found["picture"][0], 8)


def test_a_sample_is_not_small_while_targets_find_cells_that_are_no_inputs():
    found = divided(
        (vector("draft", 10), vector("picture", 200)),
        {"input_alphas": {"draft": 1.0}, "target_alphas": {"draft": 1.0, "picture": 1.0}},
        inputs=("draft",),
        num_inputs=8,
        num_targets=64,
    )
    np.testing.assert_array_equal(found["draft"][0], 8)
    np.testing.assert_array_equal(found["draft"][1] + found["picture"][1], 64)


def test_tokens_without_a_share_on_either_side_make_no_sample_large():
    """16 cells and a text that the mixture leaves out: without targets nothing would be learned."""
    alone = {"input_alphas": {"picture": 1.0}, "target_alphas": {"picture": 1.0}}
    found = divided((vector("picture", 16), TEXT), alone, num_inputs=16, num_targets=16)
    np.testing.assert_array_equal(found["picture"], np.full((2, BATCH), 8))

    specs = vector("picture", 16), vector("other", 200)
    found = divided(specs, {**alone, "share_leftover": False}, num_inputs=16, num_targets=16)
    np.testing.assert_array_equal(found["picture"], np.full((2, BATCH), 8))


def test_cells_that_may_not_be_predicted_are_all_seen():
    captions = {
        "input_alphas": {"picture": 1.0},
        "target_alphas": {"text": 1.0},
        "share_leftover": False,
    }
    found = divided((vector("picture", 16), TEXT), captions, num_inputs=32, num_targets=64)
    np.testing.assert_array_equal(found["picture"][0], 16)
