"""The threshold of weights: what a search without a sort finds, on every kind of device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fourm_jax.ops import threshold

RNG = np.random.default_rng(0)
ROWS = {
    "normal": RNG.normal(size=500),
    "flat": np.full(500, 0.25),
    "half of them cannot be": np.where(np.arange(500) < 250, -np.inf, RNG.normal(size=500)),
    "one hot": np.where(np.arange(500) == 7, 30.0, -5.0),
    "a few peaks": RNG.normal(scale=2, size=500) + 12.0 * (np.arange(500) % 50 == 3),
    "ties": np.round(RNG.normal(size=500)),
    "far apart": np.where(np.arange(500) % 2, -1e30, RNG.normal(size=500)),
    "alone": np.where(np.arange(500) == 2, 1.0, -np.inf),
}


def likelihood_of(values):
    largest = values.max(-1, keepdims=True)
    total = jnp.exp(values - largest).sum(-1, keepdims=True)
    return lambda some: jnp.exp(some - largest) / total


def halved(values, budget):
    """The bisection of all float32 numbers."""
    values = jnp.asarray(values)
    budgets = jnp.broadcast_to(jnp.float32(budget), values.shape[:-1])
    weights = likelihood_of(values)(values)
    return threshold._halve(threshold.sortable(values), weights, budgets)


@pytest.fixture
def passes(monkeypatch):
    """How often a search has gone over the values."""
    counts = []

    def counted(going, body, state):
        counts.append(0)
        while going(state):
            counts[-1] += 1
            state = body(state)
        return state

    monkeypatch.setattr(jax.lax, "while_loop", counted)
    return counts


def test_the_threshold_is_one_of_the_values():
    values = jnp.asarray([[3.0, 1.0, 2.0]])

    def weigh(some):  # .5, .1, .4
        return jnp.where(some > 2.5, 0.5, jnp.where(some > 1.5, 0.4, 0.1))

    for budget, expected in ((0.4, 3.0), (0.6, 2.0), (0.95, 1.0), (2.0, 1.0)):
        assert threshold.smallest_within(values, weigh, budget).tolist() == [expected]


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("top_p", [0.0, 0.05, 0.5, 0.9, 0.999])
def test_aiming_finds_what_halving_finds(kind, top_p):
    values = jnp.asarray(ROWS[kind], jnp.float32)[None]
    found = threshold.smallest_within(values, likelihood_of(values), top_p)
    np.testing.assert_array_equal(found, halved(values, top_p))


@settings(max_examples=200, deadline=None)
@given(
    row=st.lists(st.integers(-4000, 4000), min_size=24, max_size=24),
    top_p=st.integers(0, 99),
)
def test_any_row_is_found_by_aiming_as_by_halving(row, top_p):
    values = jnp.asarray([row], jnp.float32) / 200
    share = jnp.float32(top_p) / 100
    np.testing.assert_array_equal(aimed_jit(values, share), halved_jit(values, share))


aimed_jit = jax.jit(lambda x, p: threshold.smallest_within(x, likelihood_of(x), p))
halved_jit = jax.jit(halved)


@pytest.mark.parametrize("count", [0, 3, 250, 499])
def test_equal_weights_count(count):
    values = jnp.asarray(ROWS["normal"], jnp.float32)
    expected = np.sort(values)[::-1][count]
    assert threshold.smallest_within(values, jnp.ones_like, count) == expected


def test_a_row_is_searched_as_if_it_were_alone():
    values = jnp.asarray(np.stack(list(ROWS.values())), jnp.float32)
    together = threshold.smallest_within(values, likelihood_of(values), 0.9)
    for row, found in zip(values, together, strict=True):
        assert threshold.smallest_within(row[None], likelihood_of(row[None]), 0.9) == found


def test_rows_that_weigh_less_than_the_budget_end_at_their_smallest_value():
    values = jnp.asarray(np.stack([ROWS["normal"], ROWS["one hot"]]), jnp.float32)
    found = threshold.smallest_within(values, likelihood_of(values), jnp.asarray([2.0, 0.5]))
    assert found.tolist() == [values[0].min(), 30.0]


@pytest.mark.parametrize("scale", [0.4, 1.0, 3.0])
def test_a_cpu_needs_half_of_the_passes(passes, scale):
    rows = np.random.default_rng(1).normal(scale=scale, size=(8, 8192)).astype(np.float32)
    for row in rows:
        threshold.smallest_within(jnp.asarray(row), likelihood_of(jnp.asarray(row)), 0.9)
    assert np.mean(passes) <= 32 / 2


def test_a_cpu_halves_where_aiming_leads_nowhere(passes):
    values = jnp.asarray(
        -(2.0 ** np.arange(-100.0, 27.0)), jnp.float32
    )  # from one to the other 2 x
    for count in (1, 60, 120):
        found = threshold.smallest_within(values, jnp.ones_like, count)
        assert found == values[count]
    assert max(passes) <= threshold.NUM_AIMED + 32


def test_a_tpu_finds_the_same_thresholds_in_a_third_of_the_passes(passes, monkeypatch):
    values = np.random.default_rng(0).normal(size=(6, 50)).astype(np.float32)
    values[1] = 0.25  # flat
    values[2, :20] = -np.inf
    values[3, 7] = 30.0
    values[4] = np.round(values[4])  # ties
    budgets = jnp.asarray([0.05, 0.3, 0.9, 0.99, 0.5, 2.0])  # 2: all of them weigh less
    found = []
    for platform in ("cpu", "tpu"):
        monkeypatch.setattr(threshold.hardware, "platform", lambda here=platform: here)
        found.append(threshold.smallest_within(values, likelihood_of(values), budgets))
    np.testing.assert_array_equal(*found)
    assert found[0][5] == values[5].min() and passes[1] <= 11
