"""Vector quantization: hand-worked cases, and one step of every published quantizer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.parity import quantizers as verify
from fourm_jax.models import quantizers
from fourm_jax.ops import kmeans, quantize
from tests import golden_cases

CASES = dict(verify.cases(golden_cases.shipped("quantizers")))


def test_cosine_looks_at_directions_and_euclidean_at_distances():
    codes = jnp.array([[1.0, 0.0], [0.0, 3.0]])
    latents = jnp.array([[0.5, 0.6], [0.0, 0.1]])
    assert quantize.nearest(latents, codes, "cosine").tolist() == [1, 1]
    assert quantize.nearest(latents, codes, "euclidean").tolist() == [0, 0]


def test_the_first_of_equally_near_codes_wins_in_every_block(monkeypatch):
    codes = jnp.array([[0.0, 1.0], [1.0, 0.0], [2.0, 0.0], [1.0, 0.0]])
    assert quantize.nearest(jnp.array([[3.0, 0.0]]), codes, "cosine").tolist() == [1]
    monkeypatch.setattr(quantize, "SCORE_ELEMENTS", 1)
    assert quantize.nearest(jnp.array([[3.0, 0.0]]), codes, "cosine").tolist() == [1]


def test_blocks_of_codes_change_no_id(monkeypatch):
    latents, codes = np.random.default_rng(0).normal(size=(2, 50, 4)).astype(np.float32)
    whole = {m: quantize.nearest(latents, codes, m) for m in quantize.METRICS}
    monkeypatch.setattr(quantize, "SCORE_ELEMENTS", 50 * 7)
    for metric, ids in whole.items():
        np.testing.assert_array_equal(quantize.nearest(latents, codes, metric), ids)


def test_corrected_cosine_codes_stay_on_the_sphere_and_unused_ones_do_not_move():
    codes, latents = jnp.eye(2), jnp.array([[0.6, 0.8], [0.6, 0.8]])
    updated, sizes = quantize.update_cosine(
        codes, jnp.zeros(2), latents, jnp.array([1, 1]), decay=0.5, renormalize=True
    )
    middle = np.array([0.3, 0.9]) / np.hypot(0.3, 0.9)
    np.testing.assert_allclose(updated, [[1, 0], middle], rtol=1e-6)
    np.testing.assert_allclose(sizes, [0, 1])


def test_euclidean_codes_are_sums_by_laplace_smoothed_sizes():
    """Sizes 1 and 3, then (decay 0.5) one latent for code 0, two for code 1: 1 and 2.5."""
    codes, sizes, sums = quantize.update_euclidean(
        jnp.zeros((2, 1)),
        jnp.array([1.0, 3.0]),
        jnp.array([[2.0], [6.0]]),
        jnp.array([[4.0], [1.0], [3.0]]),
        jnp.array([0, 1, 1]),
        decay=0.5,
        keep_unused=True,
        epsilon=0.25,
    )
    np.testing.assert_allclose(sizes, [1.0, 2.5])
    np.testing.assert_allclose(sums, [[3.0], [5.0]])
    # (1 + 0.25) and (2.5 + 0.25) scaled by 3.5 / (3.5 + 2 * 0.25)
    np.testing.assert_allclose(codes, [[3 / (1.25 * 0.875)], [5 / (2.75 * 0.875)]], rtol=1e-6)


@pytest.mark.parametrize(("keep_unused", "expected"), [(True, 7.0), (False, 0.0)])
def test_a_code_without_latents_stays_where_it_is_when_its_size_has_gone_to_zero(
    keep_unused, expected
):
    codes, *_ = quantize.update_euclidean(
        jnp.array([[7.0], [2.0]]),
        jnp.array([0.0, 4.0]),
        jnp.array([[0.0], [8.0]]),
        jnp.array([[2.0]]),
        jnp.array([1]),
        decay=0.9,
        keep_unused=keep_unused,
    )
    np.testing.assert_allclose(codes, [[expected], [2.0]], atol=1e-4)


def test_euclidean_codes_that_k_means_gives_no_latents_stay_where_it_started_them():
    """Two latents and four codes: two codes at most have latents, all four lie on a latent."""
    latents = jnp.array([[3.0, 4.0], [-3.0, 4.0]])
    module = quantizers.EMACodebook(
        num_codes=4,
        latent_dim=2,
        metric="euclidean",
        kmeans_start=True,
        dead_code_coefficient=0,
    )
    book = module.init(jax.random.key(0), latents)["codebook"]
    _, _, book = verify.codebook_step(module, book, latents)
    assert (book["cluster_size"] == 0).sum() >= 2
    np.testing.assert_allclose(np.abs(book["codes"]), [[3.0, 4.0]] * 4, rtol=1e-3)


def test_euclidean_codes_that_are_never_used_stay_however_small_their_sizes_get():
    module = quantizers.EMACodebook(
        num_codes=2, latent_dim=1, metric="euclidean", decay=0.5, dead_code_coefficient=0
    )
    book = {
        "codes": jnp.array([[1.0], [9.0]]),
        "code_sums": jnp.array([[1.0], [9.0]]),
        "cluster_size": jnp.ones(2),
        "initialized": jnp.asarray(True),
    }

    def step(book, _):
        latents = jnp.array([[1.0]])
        _, state = module.apply({"codebook": book}, latents, train=True, mutable=["codebook"])
        return state["codebook"], None

    book, _ = jax.lax.scan(step, book, length=50)  # 0.5^50 is far below the 1e-5 of the smoothing
    np.testing.assert_allclose(book["codes"], [[1.0], [9.0]], rtol=1e-3)


def test_dead_codes_become_copies_of_the_most_used_ones_in_their_order():
    codes = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.0, -1.0]])
    sizes = jnp.array([0.1, 5.0, 9.0, 0.2])
    replaced, kept = quantize.replace_dead(
        jax.random.key(0),
        codes,
        sizes,
        jnp.zeros((1, 2)),
        threshold=1.0,
        policy="linde_buzo_gray",
        normalize=True,
        noise=1e-6,
    )
    np.testing.assert_allclose(replaced, [[0.6, 0.8], [0, 1], [0.6, 0.8], [0, 1]], atol=1e-5)
    np.testing.assert_array_equal(kept, sizes)  # published: the old size stays


def test_a_replaced_code_is_a_latent_and_starts_with_a_fresh_size():
    latents = jnp.array([[3.0, 4.0]] * 5)
    codes, sizes = quantize.replace_dead(
        jax.random.key(0),
        jnp.eye(2),
        jnp.array([0.1, 5.0]),
        latents,
        threshold=1.0,
        policy="batch_random",
        normalize=True,
        reset_size=2.5,
    )
    np.testing.assert_allclose(codes, [[0.6, 0.8], [0, 1]], rtol=1e-6)
    np.testing.assert_allclose(sizes, [2.5, 5.0])


def test_an_unknown_policy_is_named():
    with pytest.raises(ValueError, match="policy 'lloyd', allowed"):
        quantize.replace_dead(
            jax.random.key(0),
            jnp.eye(2),
            jnp.ones(2),
            jnp.eye(2),
            threshold=1.0,
            policy="lloyd",
            normalize=True,
        )


def test_usage_counts_codes_and_perplexity_is_the_effective_number():
    metrics = quantize.usage_metrics(jnp.array([0, 0, 3, 3]), 8)
    np.testing.assert_allclose(metrics["codebook_usage"], 0.25)
    np.testing.assert_allclose(metrics["perplexity"], 2.0, rtol=1e-6)


def test_hard_gumbel_is_one_hot_with_the_gradient_of_the_relaxed_sample():
    logits = jnp.array([1.0, 2.0, 3.0])
    choice = quantize.hard_gumbel(jax.random.key(0), logits)
    assert sorted(choice.tolist()) == pytest.approx([0, 0, 1], abs=1e-6)
    gradient = jax.grad(lambda x: quantize.hard_gumbel(jax.random.key(0), x)[0])(logits)
    soft = jax.nn.softmax(logits + jax.random.gumbel(jax.random.key(0), (3,)))
    np.testing.assert_allclose(gradient, soft[0] * (np.eye(3)[0] - soft), rtol=1e-5)


def test_hard_gumbel_chooses_with_the_softmax_probabilities():
    logits = jnp.log(jnp.array([0.7, 0.2, 0.1]))
    choices = quantize.hard_gumbel(jax.random.key(1), jnp.tile(logits, (20_000, 1)))
    np.testing.assert_allclose(choices.mean(0), [0.7, 0.2, 0.1], atol=0.015)


def test_k_means_by_hand():
    """Means 0 and 1 of 0, 1, 5, 6: {0} {1, 5, 6}, then {0, 1} {5, 6}; the unused one stays."""
    samples = jnp.array([[0.0], [1.0], [5.0], [6.0]])
    start = jnp.array([[0.0], [1.0], [-50.0]])
    for steps, expected, sizes in (
        (1, [0, 4, -50], [1, 3, 0]),
        (2, [0.5, 5.5, -50], [2, 2, 0]),
        (10, [0.5, 5.5, -50], [2, 2, 0]),
    ):
        means, counts = kmeans.kmeans(samples, start, metric="euclidean", num_iterations=steps)
        np.testing.assert_allclose(means[:, 0], expected)
        np.testing.assert_array_equal(counts, sizes)


def test_memcodes_training_draws_codes_by_their_softmax_and_returns_their_values():
    """One head of width 1: keys = codes · 1, values = codes · 2, logits = latent · key."""
    module = quantizers.Memcodes(num_codes=2, latent_dim=1)
    params = {
        "params": {
            "codes": jnp.array([[[0.0], [1.0]]]),
            "to_keys": jnp.ones((1, 1, 1)),
            "to_values": jnp.full((1, 1, 1), 2.0),
        }
    }
    latents = jnp.full((20_000, 1), np.log(3.0))  # logits 0 and log 3: shares 1/4 and 3/4

    @jax.jit
    def train(params, latents):
        rngs = {"quantizer": jax.random.key(0)}
        return module.apply(params, latents, True, rngs=rngs)

    out = train(params, latents)
    assert abs(out.ids.mean() - 0.75) < 0.015
    np.testing.assert_allclose(out.values, 2.0 * out.ids, atol=1e-5)
    assert out.loss == 0
    assert (module.apply(params, latents[:5]).ids == 1).all()  # evaluation takes the best
    gradient = jax.grad(lambda x: train(params, x).values.sum())(latents)
    codes = jax.grad(lambda p: train(p, latents).values.sum())(params)["params"]["codes"]
    assert np.abs(gradient).min() > 0  # through the relaxed choice
    assert codes[0, 1, 0] > 2 * 0.7 * 20_000  # at least through the value of the chosen code


@pytest.mark.parametrize("metric", quantize.METRICS)
def test_a_collapsed_codebook_recovers_within_thirty_steps(metric):
    rng = np.random.default_rng(0)
    latents = quantize.l2_normalize(jnp.asarray(rng.normal(size=(512, 4)), jnp.float32))
    module = quantizers.EMACodebook(
        num_codes=32, latent_dim=4, metric=metric, decay=0.9, dead_code_coefficient=4.0
    )
    same = jnp.tile(latents[:1], (32, 1))
    book = {"codes": same, "cluster_size": jnp.zeros(32), "initialized": jnp.asarray(True)}
    if metric == "euclidean":
        book["code_sums"] = jnp.zeros((32, 4))

    def step(book, key):
        _, state = module.apply(
            {"codebook": book}, latents, train=True, mutable=["codebook"], rngs={"quantizer": key}
        )
        return state["codebook"], None

    book, _ = jax.lax.scan(step, book, jax.random.split(jax.random.key(0), 30))
    ids = module.apply({"codebook": book}, latents).ids
    assert len(np.unique(ids)) >= 30


def test_a_k_means_start_puts_codes_on_the_first_batch():
    centres = np.eye(4, dtype=np.float32)
    latents = jnp.asarray(np.repeat(centres, 16, axis=0))
    module = quantizers.EMACodebook(num_codes=16, latent_dim=4, kmeans_start=True)
    book = module.init(jax.random.key(0), latents)["codebook"]
    assert not book["initialized"]
    _, out, book = verify.codebook_step(module, book, latents)
    assert book["initialized"]
    np.testing.assert_allclose(out.values, latents, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_every_quantizer_matches_the_published_one(case):
    """One training step with moving averages, Memcodes in evaluation, k-means."""
    golden_cases.assert_all_pass(CASES[case])


def test_a_sharded_batch_updates_the_codebook_like_the_whole_batch():
    module = quantizers.EMACodebook(num_codes=8, latent_dim=4, decay=0.5)
    latents = jax.random.normal(jax.random.key(0), (32, 4))
    book = module.init(jax.random.key(1), latents)["codebook"]
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    _, whole, expected = verify.codebook_step(module, book, latents)
    _, shards, updated = verify.codebook_step(module, book, jax.device_put(latents, sharding))
    np.testing.assert_array_equal(shards.ids, whole.ids)
    for name in expected:
        np.testing.assert_allclose(updated[name], expected[name], rtol=1e-5, atol=1e-6)
