"""The rows of a head that a text can draw: alone they give what all rows give."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fourm_jax.convert import fourm
from fourm_jax.generate import chain, next_tokens, sequences, stages, trunk
from fourm_jax.generate import state as states
from fourm_jax.generate.grids import Sampling
from fourm_jax.generate.schedule import Step
from tests.generate import tiny

SIZE = 5000  # 4,204 reserved ids, then words
WORDS = ((0, 256), (4096, SIZE))


@functools.cache
def trunk_of(form):
    """A random trunk whose caption is of this form, with all ids that there are."""
    specs = tuple(
        spec.replace(vocab_size=SIZE, text_form=form) if spec.name == "caption" else spec
        for spec in tiny.SPECS
    )
    model = tiny.trunk()[0].clone(modalities=specs)
    shapes = jax.eval_shape(model.init, jax.random.key(0), fourm.example_tokens(model))["params"]
    rng = np.random.default_rng(0)
    return model, jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(scale=0.4, size=leaf.shape), leaf.dtype), shapes
    )


def write(form, num_rows=2, **rules):
    model, params = trunk_of(form)
    state = states.create(tiny.conditions(num_rows, ("rgb",)), ["caption"], specs=model.modalities)
    steps = [Step(target="caption", scheme="autoregressive", num_tokens=8, temperature=1.0)]
    keys = chain.row_keys(0, np.arange(num_rows))
    done = chain.run(model, params, state, steps, keys=keys, sampling=Sampling(**rules))
    return np.asarray(done.ids["caption"]), np.asarray(done.known["caption"])


def test_logits_are_those_of_all_rows_in_their_places():
    model, params = trunk_of("captions")
    state = states.create(tiny.conditions(2, ("rgb",)), ["caption"], specs=model.modalities)
    index = states.index_of(model.modalities, "caption")
    targets = states.sequence_targets(index, jnp.asarray([[5, 4300]] * 2), jnp.asarray([2, 2]))
    batch = states.token_batch([state], [targets], model.modalities)

    @functools.partial(jax.jit, static_argnames="drawable")
    def logits_of(params, drawable):
        decoder = trunk.TrunkSequenceDecoder(model, params, "caption", drawable)
        return decoder.step(decoder.start(batch, 3), jnp.asarray([5, 5]), jnp.asarray(0))[0]

    every, some = logits_of(params, ((0, SIZE),)), logits_of(params, WORDS)
    assert some.shape == every.shape == (2, SIZE)
    for start, stop in WORDS:
        np.testing.assert_array_equal(some[:, start:stop], every[:, start:stop])
    assert not np.asarray(some[:, 256:4096]).any()


@pytest.mark.parametrize("form", ["captions", "metadata", "palette"])
@pytest.mark.parametrize("num_rows", [1, 3])
def test_texts_are_those_of_all_rows(form, num_rows, monkeypatch):
    few = write(form, num_rows, top_p=0.9)
    monkeypatch.setattr(sequences, "drawable", lambda stage, specs: ((0, SIZE),))
    stages._write_sequence.clear_cache()
    every = write(form, num_rows, top_p=0.9)
    stages._write_sequence.clear_cache()
    for one, other in zip(few, every, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("num_rows", [1, 3])
def test_rows_where_the_table_has_them_are_those_that_a_program_cuts(num_rows, monkeypatch):
    model, params = trunk_of("captions")
    head = trunk.with_head_rows(model, params, "caption", WORDS)[trunk.HEAD]
    table = params["decoder_embedding"]["tokens"]
    offset = table.shape[0] - sum(
        spec.vocab_size for spec in model.modalities[4:] if spec.name in model.outputs
    )
    for part, (start, stop) in zip(head, WORDS, strict=True):
        np.testing.assert_array_equal(part, table[offset + start : offset + stop])
    there = write("captions", num_rows, top_p=0.9)
    monkeypatch.setattr(trunk, "with_head_rows", lambda model, params, *_: params)
    for one, other in zip(there, write("captions", num_rows, top_p=0.9), strict=True):
        np.testing.assert_array_equal(one, other)


def test_heads_that_are_cast_or_on_several_devices_are_cut_by_the_program():
    model, params = trunk_of("captions")
    other = model.clone(dtype=jnp.bfloat16)
    assert trunk.with_head_rows(other, params, "caption", WORDS) is params
    on_mesh = jax.device_put(params, jax.NamedSharding(jax.make_mesh((2,), ("x",)), jax.P()))
    assert trunk.with_head_rows(model, on_mesh, "caption", WORDS) is on_mesh
    assert trunk.with_ready_kernels(model, on_mesh, 1) is on_mesh


def test_a_share_of_the_vocabulary_counts_all_ids():
    ids, known = write("captions", top_k=0.01)  # 50 ids, of which some are coordinates
    assert known.any() and (ids[known] >= 4204).sum() + (ids[known] == 3).sum() == known.sum()


def test_a_row_is_the_same_alone():
    (ids, known), (one_ids, one_known) = write("captions", 3), write("captions", 1)
    np.testing.assert_array_equal(ids[:1], one_ids)
    np.testing.assert_array_equal(known[:1], one_known)


def test_all_rows_are_kept_without_grammar():
    specs = trunk_of("captions")[0].modalities
    free = sequences.SequenceStage(target="caption", max_new=5, length=8)
    assert sequences.drawable(free, specs) == ((0, SIZE),)
    grammar = next_tokens.grammar_of(specs[4], free.vocabulary)
    stage = sequences.SequenceStage(target="caption", max_new=5, length=8, grammar=grammar)
    assert sequences.drawable(stage, specs) == WORDS
    ended = sequences.SequenceStage(
        target="caption", max_new=5, length=8, grammar=grammar, end_id=210
    )
    assert sequences.drawable(ended, specs) == ((0, SIZE),)
