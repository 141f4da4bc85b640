"""Top-k and nucleus: what they keep is what the sorted order says, found without sorting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from fourm_jax.ops import filters
from tests import golden_cases

LOGITS = np.log(np.array([[[0.1, 0.4, 0.2, 0.3]]], np.float32))
SIZE = 24

# Few different values, so that ties are common; -inf: an id that cannot be.
values = st.sampled_from([-np.inf, -3.0, -1.0, -0.5, -0.0, 0.0, 0.25, 1.0, 2.0, 30.0])
rows = st.lists(values | st.floats(-8, 8, width=32), min_size=SIZE, max_size=SIZE)
some_rows = rows.filter(lambda row: max(row) > -np.inf)


def kept(logits):
    return np.isfinite(np.asarray(logits)).tolist()


def test_top_k_as_a_count_keeps_that_many():
    assert kept(filters.filter_top_k(LOGITS, 2)) == [[[False, True, False, True]]]


def test_top_k_as_a_share_keeps_that_share_of_the_vocabulary():
    assert kept(filters.filter_top_k(LOGITS, 0.75)) == [[[False, True, True, True]]]


@pytest.mark.parametrize("top_k", [0, 0.0, 4, 100])
def test_top_k_of_zero_or_of_everything_changes_nothing(top_k):
    np.testing.assert_array_equal(filters.filter_top_k(LOGITS, top_k), LOGITS)


def test_top_p_keeps_the_token_that_crosses_the_threshold():
    assert kept(filters.filter_top_p(LOGITS, 0.5)) == [[[False, True, False, True]]]


def test_top_p_always_keeps_the_most_likely_token():
    assert kept(filters.filter_top_p(LOGITS, 1e-6)) == [[[False, True, False, False]]]


def test_filters_match_the_published_ones():
    cases = load_file(golden_cases.shipped("generation") / "top_k_top_p.safetensors")
    for name, expected in cases.items():
        if name == "logits":
            continue
        top_k, top_p = name.removeprefix("filtered/k").split("_p")
        top_k = float(top_k) if "." in top_k else int(top_k)
        filtered = filters.filter_top_p(
            filters.filter_top_k(jnp.asarray(cases["logits"]), top_k), float(top_p)
        )
        np.testing.assert_array_equal(filtered, expected, err_msg=name)


@pytest.mark.parametrize("wrong", [{"top_k": -1}, {"top_k": 1.5}, {"top_p": 1.2}])
def test_filters_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} .*allowed"):
        filters.check_filters(**{"top_k": 0, "top_p": 0.0, **wrong})


def sorted_top_p(row, top_p):
    """The definition: in falling order, stable, keep what has at most top_p before it.

    Also how far the nearest decision is from its border.
    """
    order = np.argsort(-row, kind="stable")
    probs = np.exp(row[order] - row.max())
    probs /= probs.sum()
    before = np.cumsum(probs) - probs
    kept = np.zeros(len(row), bool)
    kept[order] = before <= top_p
    kept[order[0]] = True
    return kept, np.abs(before[1:] - top_p).min()


@settings(max_examples=300)
@given(row=some_rows, top_p=st.sampled_from([0.05, 0.3, 0.5, 0.9, 0.99]))
def test_the_nucleus_is_that_of_the_sorted_order(row, top_p):
    row = np.asarray(row, np.float64)
    kept, margin = sorted_top_p(row, top_p)
    if margin < 1e-5:
        return  # rounding may decide either way
    found = top_p_jit(jnp.asarray(row, jnp.float32), top_p)
    np.testing.assert_array_equal(np.isfinite(found), kept & np.isfinite(row))
    np.testing.assert_array_equal(found[kept], np.asarray(row, np.float32)[kept])


@settings(max_examples=200)
@given(row=some_rows, count=st.sampled_from([1, 2, 5, 23]))
def test_the_largest_are_those_of_the_sorted_order_and_what_ties_with_the_last(row, count):
    row = np.asarray(row, np.float32)
    expected = row >= np.sort(row)[-count]
    found = top_k_jit[count](jnp.asarray(row))
    np.testing.assert_array_equal(np.isfinite(found), expected & np.isfinite(row))


top_p_jit = jax.jit(filters.filter_top_p, static_argnames="top_p")
top_k_jit = {k: jax.jit(lambda row, k=k: filters.filter_top_k(row, k)) for k in (1, 2, 5, 23)}


def test_of_equal_ids_the_first_stay():
    flat = jnp.zeros((1, 10))
    assert kept(filters.filter_top_p(flat, 0.35)) == [[True] * 4 + [False] * 6]
    tied = jnp.log(jnp.asarray([[0.1, 0.4, 0.1, 0.1, 0.1, 0.1, 0.1]]))
    expected = [True, True, True, False, False, False, False]  # .4, .1, then .6 > .55
    assert kept(filters.filter_top_p(tied, 0.55)) == [expected]


def test_a_one_hot_row_keeps_one_and_other_rows_do_not_matter():
    logits = jnp.stack([jnp.where(jnp.arange(10) == 7, 0.0, -jnp.inf), jnp.zeros(10)])
    found = kept(filters.filter_top_p(logits, 0.9))
    assert found[0] == [i == 7 for i in range(10)]
    assert sum(found[1]) == 10  # .9 lies before the last one
