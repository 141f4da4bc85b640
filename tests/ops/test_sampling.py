"""What draws, temperatures, guidance and confidences of generation must do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fourm_jax.ops import sampling

LOGITS = jnp.log(jnp.array([[[0.1, 0.4, 0.2, 0.3]]], jnp.float32))


def keys(num_rows, seed=0):
    return jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(jnp.arange(num_rows))


def uniforms(num_rows, num_positions=1):
    return sampling.uniforms(keys(num_rows), num_positions)


def test_temperature_sharpens_the_confidence():
    ids, confidence = sampling.sample(uniforms(1), LOGITS, 0.5, draw=sampling.draw_most_likely)
    assert ids.tolist() == [[1]]
    # p^2 normalized: 0.16 / (0.01 + 0.16 + 0.04 + 0.09)
    np.testing.assert_allclose(confidence, [[0.16 / 0.30]], rtol=1e-5)


def test_temperature_zero_takes_the_most_likely_token_and_still_ranks_by_probability():
    ids, confidence = sampling.sample(uniforms(1), LOGITS, 0.0)
    assert ids.tolist() == [[1]]
    np.testing.assert_allclose(confidence, [[0.4]], rtol=1e-5)
    _, published = sampling.sample(uniforms(1), LOGITS, 0.0, as_published=True)
    assert published.tolist() == [[1.0]]


def test_the_nucleus_belongs_to_the_tempered_distribution_unless_drawn_as_published():
    # tempered by 0.25 the first two ids hold 0.95 of the mass, plain they hold 0.7
    options = {"top_p": 0.72, "draw": sampling.draw_most_likely}
    _, ours = sampling.sample(uniforms(1), LOGITS, 0.25, **options)
    _, published = sampling.sample(uniforms(1), LOGITS, 0.25, as_published=True, **options)
    power = np.array([0.4, 0.3, 0.2]) ** 4
    np.testing.assert_allclose(ours, [[power[0] / power[:1].sum()]], rtol=1e-5)
    np.testing.assert_allclose(published, [[power[0] / power.sum()]], rtol=1e-5)


def test_a_row_is_drawn_alike_alone_and_in_a_batch():
    logits = jax.random.normal(jax.random.key(1), (3, 5, 11))
    together, _ = sampling.sample(sampling.uniforms(keys(3), 5), logits, 1.0)
    for i in range(3):
        alone = sampling.sample(sampling.uniforms(keys(3)[i : i + 1], 5), logits[i : i + 1], 1.0)
        np.testing.assert_array_equal(together[i], alone[0][0])


def test_a_position_has_the_same_number_whatever_the_number_of_positions():
    np.testing.assert_array_equal(uniforms(2, 9)[:, :4], uniforms(2, 4))


def test_draws_follow_the_probabilities():
    logits = jnp.tile(LOGITS, (1, 20_000, 1))
    ids, _ = sampling.sample(uniforms(1, 20_000), logits, 1.0)
    shares = np.bincount(np.asarray(ids[0]), minlength=4) / 20_000
    np.testing.assert_allclose(shares, [0.1, 0.4, 0.2, 0.3], atol=0.015)


def test_the_number_picks_the_id_at_its_place_in_the_cumulated_probabilities():
    # cumulated .1 .5 .7 1
    uniform = jnp.asarray([0.0, 0.09, 0.11, 0.49, 0.51, 0.69, 0.71, 0.999])
    ids = sampling.draw_categorical(uniform, jnp.tile(LOGITS[0], (8, 1)))
    assert ids.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("size", [3, 128, 129, 1000])
def test_an_id_that_cannot_be_is_never_drawn(size):
    logits = np.full((size, size), -np.inf, np.float32)
    logits[np.arange(size), np.arange(size)] = 3.0  # row i allows id i alone
    for uniform in (0.0, 0.5, np.nextafter(np.float32(1), np.float32(0))):
        ids = sampling.draw_categorical(jnp.full(size, uniform), jnp.asarray(logits))
        np.testing.assert_array_equal(ids, np.arange(size))


def test_draws_of_a_large_vocabulary_reach_every_part_of_it():
    uniform = (jnp.arange(1000) + 0.5) / 1000
    ids = sampling.draw_categorical(uniform, jnp.zeros((1000, 1000)))
    np.testing.assert_array_equal(ids, np.arange(1000))


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
