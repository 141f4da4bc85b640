"""Merging generated spans into a masked text, by hand and against the published examples."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourm_jax.generate import fill_spans
from fourm_jax.modalities.vocabulary import PUBLISHED, TextVocabulary
from tests import golden_cases

EOS, S1, S2, S3 = 3, 5, 6, 7


def merge(ids, generated, length=10, vocabulary=None):
    known, written = jnp.ones((1, len(ids)), bool), jnp.ones((1, len(generated)), bool)
    merged, valid = fill_spans.merge_spans(
        jnp.asarray([ids], jnp.int32),
        known,
        jnp.asarray([generated], jnp.int32),
        written,
        length=length,
        vocabulary=vocabulary or TextVocabulary(),
    )
    return np.asarray(merged)[0, np.asarray(valid)[0]].tolist()


def merge_padded(ids, generated):
    """`merge` at one width for all lengths, so that it compiles once."""
    masked = [(row + [0] * (16 - len(row)), np.arange(16) < len(row)) for row in (ids, generated)]
    merged, valid = merge_16(*(np.asarray(part)[None] for pair in masked for part in pair))
    return np.asarray(merged)[0, np.asarray(valid)[0]].tolist()


@jax.jit
def merge_16(ids, known, generated, written):
    return fill_spans.merge_spans(
        ids, known, generated, written, length=16, vocabulary=TextVocabulary()
    )


def test_each_sentinel_is_replaced_by_what_follows_it():
    assert merge([S1, 300, S2, 301], [S1, 407, 408, S2, 409, S3]) == [407, 408, 300, 409, 301]


def test_a_sentinel_that_was_never_generated_becomes_nothing():
    assert merge([300, S1, 301, S2], [S2, 409, S3]) == [300, 301, 409]


def test_a_span_of_a_foreign_sentinel_is_dropped():
    assert merge([300, S1], [S1, 409, S3, 410]) == [300, 409]


def test_what_does_not_fit_is_cut_off():
    assert merge([S1, 300], [S1, 401, 402, 403], length=3) == [401, 402, 403]


def test_tokens_that_were_not_written_do_not_count():
    merged, valid = fill_spans.merge_spans(
        jnp.asarray([[S1, 300, 999]]),
        jnp.asarray([[True, True, False]]),
        jnp.asarray([[S1, 401, 402]]),
        jnp.asarray([[True, True, False]]),
        length=4,
        vocabulary=TextVocabulary(),
    )
    assert merged.tolist() == [[401, 300, 0, 0]]
    assert valid.tolist() == [[True, True, False, False]]


def test_published_examples_are_merged_alike():
    path = golden_cases.shipped("generation") / "schedules.json"
    vocabulary = TextVocabulary(num_sentinels=10)
    for case in json.loads(path.read_text())["merge_span_masking"]:
        assert (
            merge(case["input_ids"], case["decoder_ids"], vocabulary=vocabulary) == (case["merged"])
        ), case


@pytest.mark.parametrize("token", [3, 4, 203, 204])
def test_sentinels_are_recognised_at_both_ends_of_their_range(token):
    assert bool(fill_spans.is_sentinel(jnp.asarray(token), TextVocabulary())) == (4 <= token <= 203)


@given(words=st.lists(st.integers(204, 299), max_size=8), cuts=st.lists(st.booleans(), min_size=8))
def test_merging_undoes_span_masking(words, cuts):
    inputs, targets, hidden, used = [], [], False, 0
    for word, cut in zip(words, cuts, strict=False):
        if cut and not hidden:
            used += 1
            inputs.append(S1 + used)
            targets.append(S1 + used)
        hidden = cut
        (targets if cut else inputs).append(word)
    targets.append(S1 + used + 1)
    assert merge_padded(inputs, targets) == words


def test_the_next_sentinel_closes_a_hole_and_eos_a_text_that_is_open_to_its_end():
    rows = [
        ([S1, 300, S2, 301], [S2, S3, -1, -1]),
        ([300, S1, 301, S2], [S2, EOS, -1, -1]),
        ([S2, 300, S1, 301], [S1, S3, -1, -1]),
        ([300, S1, 0, 0], [EOS, -1, -1, -1]),
        ([300, 301, 302, EOS], [-1, -1, -1, -1]),
    ]
    ids = jnp.asarray([row for row, _ in rows])
    known = jnp.asarray([[token > 0 for token in row] for row, _ in rows])
    wanted = [closing for _, closing in rows]
    assert fill_spans.closing_tokens(ids, known, PUBLISHED).tolist() == wanted


def test_a_sentinel_always_closes_the_last_hole_as_published():
    ids = jnp.asarray([[300, S1], [S1, 300]])
    closing = fill_spans.closing_tokens(ids, jnp.ones((2, 2), bool), PUBLISHED, as_published=True)
    assert closing.tolist() == [[S2, -1], [S2, -1]]
