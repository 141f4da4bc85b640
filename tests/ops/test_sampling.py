"""What the filters, temperatures, guidance and confidences of generation must do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from fourm_jax.ops import sampling
from tests import golden_cases

LOGITS = jnp.log(jnp.array([[[0.1, 0.4, 0.2, 0.3]]], jnp.float32))


def kept(logits):
    return np.isfinite(np.asarray(logits)).tolist()


def keys(num_rows, seed=0):
    return jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(jnp.arange(num_rows))


def test_top_k_as_a_count_keeps_that_many():
    assert kept(sampling.filter_top_k(LOGITS, 2)) == [[[False, True, False, True]]]


def test_top_k_as_a_share_keeps_that_share_of_the_vocabulary():
    assert kept(sampling.filter_top_k(LOGITS, 0.75)) == [[[False, True, True, True]]]


@pytest.mark.parametrize("top_k", [0, 0.0, 4, 100])
def test_top_k_of_zero_or_of_everything_changes_nothing(top_k):
    np.testing.assert_array_equal(sampling.filter_top_k(LOGITS, top_k), LOGITS)


def test_top_p_keeps_the_token_that_crosses_the_threshold():
    assert kept(sampling.filter_top_p(LOGITS, 0.5)) == [[[False, True, False, True]]]


def test_top_p_always_keeps_the_most_likely_token():
    assert kept(sampling.filter_top_p(LOGITS, 1e-6)) == [[[False, True, False, False]]]


def test_filters_match_the_published_ones():
    cases = load_file(golden_cases.shipped("generation") / "top_k_top_p.safetensors")
    for name, expected in cases.items():
        if name == "logits":
            continue
        top_k, top_p = name.removeprefix("filtered/k").split("_p")
        top_k = float(top_k) if "." in top_k else int(top_k)
        filtered = sampling.filter_top_p(
            sampling.filter_top_k(jnp.asarray(cases["logits"]), top_k), float(top_p)
        )
        np.testing.assert_array_equal(filtered, expected, err_msg=name)


@pytest.mark.parametrize("filters", [{"top_k": -1}, {"top_k": 1.5}, {"top_p": 1.2}])
def test_filters_that_mean_nothing_are_refused(filters):
    with pytest.raises(ValueError, match=f"{next(iter(filters))} .*allowed"):
        sampling.check_filters(**{"top_k": 0, "top_p": 0.0, **filters})


def test_temperature_sharpens_the_confidence():
    ids, confidence = sampling.sample(keys(1), LOGITS, 0.5, draw=sampling.draw_most_likely)
    assert ids.tolist() == [[1]]
    # p^2 normalized: 0.16 / (0.01 + 0.16 + 0.04 + 0.09)
    np.testing.assert_allclose(confidence, [[0.16 / 0.30]], rtol=1e-5)


def test_temperature_zero_takes_the_most_likely_token_and_still_ranks_by_probability():
    ids, confidence = sampling.sample(keys(1), LOGITS, 0.0)
    assert ids.tolist() == [[1]]
    np.testing.assert_allclose(confidence, [[0.4]], rtol=1e-5)
    _, published = sampling.sample(keys(1), LOGITS, 0.0, as_published=True)
    assert published.tolist() == [[1.0]]


def test_the_nucleus_belongs_to_the_tempered_distribution_unless_drawn_as_published():
    # tempered by 0.25 the first two ids hold 0.95 of the mass, plain they hold 0.7
    options = {"top_p": 0.72, "draw": sampling.draw_most_likely}
    _, ours = sampling.sample(keys(1), LOGITS, 0.25, **options)
    _, published = sampling.sample(keys(1), LOGITS, 0.25, as_published=True, **options)
    power = np.array([0.4, 0.3, 0.2]) ** 4
    np.testing.assert_allclose(ours, [[power[0] / power[:1].sum()]], rtol=1e-5)
    np.testing.assert_allclose(published, [[power[0] / power.sum()]], rtol=1e-5)


def test_a_row_is_drawn_alike_alone_and_in_a_batch():
    logits = jax.random.normal(jax.random.key(1), (3, 5, 11))
    together, _ = sampling.sample(keys(3), logits, 1.0)
    alone = [sampling.sample(keys(3)[i : i + 1], logits[i : i + 1], 1.0)[0][0] for i in range(3)]
    np.testing.assert_array_equal(together, alone)


def test_draws_follow_the_probabilities():
    ids, _ = sampling.sample(keys(1), jnp.tile(LOGITS, (1, 20_000, 1)), 1.0)
    shares = np.bincount(np.asarray(ids[0]), minlength=4) / 20_000
    np.testing.assert_allclose(shares, [0.1, 0.4, 0.2, 0.3], atol=0.015)


def test_guidance_of_weight_one_is_the_conditional_prediction_and_zero_the_unconditional():
    logits = jax.random.normal(jax.random.key(0), (2, 1, 3, 4))
    np.testing.assert_allclose(sampling.guide(logits, jnp.ones(1)), logits[1], rtol=1e-5)
    np.testing.assert_allclose(sampling.guide(logits, jnp.zeros(1)), logits[0], rtol=1e-5)


def test_guidance_adds_the_weighted_differences_of_all_conditions():
    logits = jnp.asarray([1.0, 3.0, 0.0])[:, None, None, None]
    assert float(sampling.guide(logits, jnp.asarray([2.0, -1.0]))[0, 0, 0]) == 1 + 2 * 2 + 1


def test_one_view_alone_needs_no_weights():
    logits = jax.random.normal(jax.random.key(0), (1, 2, 3, 4))
    np.testing.assert_array_equal(sampling.guide(logits, jnp.zeros(0)), logits[0])


def test_the_most_confident_candidates_are_kept_and_ties_go_to_the_first():
    confidence = jnp.asarray([[0.9, 0.5, 0.5, 0.1, 0.99]])
    candidates = jnp.asarray([[True, True, True, True, False]])
    mask = sampling.keep_most_confident(confidence, candidates, 2)
    assert mask.tolist() == [[True, True, False, False, False]]


def test_a_random_order_starts_with_the_candidates_and_depends_on_its_own_row_only():
    candidates = jnp.asarray([[True, False, True, True], [False, True, True, True]])
    order = sampling.random_order(keys(2), candidates)
    assert sorted(order[0, :3].tolist()) == [0, 2, 3]
    assert sorted(order[1, :3].tolist()) == [1, 2, 3]
    np.testing.assert_array_equal(sampling.random_order(keys(2)[1:], candidates[1:])[0], order[1])
