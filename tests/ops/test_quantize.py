"""Vector quantisation: hand-worked cases, and one step of every published quantizer."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from fourm_jax.models import quantizers
from fourm_jax.ops import kmeans, quantize
from tests import golden_cases

FOLDER = golden_cases.shipped("quantizers")
META = json.loads((FOLDER / "meta.json").read_text())
INPUTS = safetensors.numpy.load_file(FOLDER / "inputs.safetensors")
OUTPUTS = safetensors.numpy.load_file(FOLDER / "outputs.safetensors")
EMA_CASES = [case for case in META if not case.startswith("memcodes")]
MEMCODES_CASES = [case for case in META if case.startswith("memcodes")]


def channels_last(x):
    return np.moveaxis(x, 1, -1)


def published_ids(name):
    ids = OUTPUTS[name]
    return ids[..., None] if ids.ndim == 3 else channels_last(ids)


def codebook_step(module, book, latents, loss=lambda out: out.loss):
    """(gradient of `loss`, Quantized, new codebook) of one training step."""

    def objective(latents):
        out, state = module.apply(
            {"codebook": book}, latents, train=True, mutable=["codebook"],
            rngs={"quantizer": jax.random.key(0)},
        )  # fmt: skip
        return loss(out), (out, state["codebook"])

    gradient, (out, book) = jax.jit(jax.grad(objective, has_aux=True))(latents)
    return gradient, out, book


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


def test_a_replaced_code_is_a_latent_and_starts_with_a_fresh_size():
    latents = jnp.array([[3.0, 4.0]] * 5)
    codes, sizes = quantize.replace_dead(
        jax.random.key(0), jnp.eye(2), jnp.array([0.1, 5.0]), latents,
        threshold=1.0, policy="batch_random", normalize=True, reset_size=2.5,
    )  # fmt: skip
    np.testing.assert_allclose(codes, [[0.6, 0.8], [0, 1]], rtol=1e-6)
    np.testing.assert_allclose(sizes, [2.5, 5.0])


def test_an_unknown_policy_is_named():
    with pytest.raises(ValueError, match="policy 'lloyd', allowed"):
        quantize.replace_dead(
            jax.random.key(0), jnp.eye(2), jnp.ones(2), jnp.eye(2),
            threshold=1.0, policy="lloyd", normalize=True,
        )  # fmt: skip


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
    _, out, book = codebook_step(module, book, latents)
    assert book["initialized"]
    np.testing.assert_allclose(out.values, latents, atol=1e-6)


@pytest.mark.parametrize("case", EMA_CASES)
def test_one_training_step_matches_the_published_quantizer(case):
    made = META[case]
    heads, threshold = made.get("heads", 1), made["threshold_ema_dead_code"]
    latents = channels_last(INPUTS[f"{case}/x"])
    share = latents.size * heads / made["dim"] / made["codebook_size"]
    policy = made.get("code_replacement_policy", "batch_random")
    module = quantizers.EMACodebook(
        num_codes=made["codebook_size"],
        latent_dim=made["dim"],
        num_heads=heads,
        metric="cosine" if made["use_cosine_sim"] else "euclidean",
        decay=made["decay"],
        commitment_weight=made["commitment_weight"],
        normalize_latents=made.get("norm_latents", False),
        dead_code_coefficient=share / threshold if threshold else 0.0,
        dead_code_policy=policy,
        compat="ml-4m",
    )
    names = {"codes": "embed", "cluster_size": "cluster_size", "code_sums": "embed_avg"}
    book = {
        ours: INPUTS[f"{case}/{theirs}_before"]
        for ours, theirs in names.items()
        if f"{case}/{theirs}_before" in INPUTS
    }
    weights = channels_last(INPUTS[f"{case}/grad_output"])
    gradient, out, updated = codebook_step(
        module, {**book, "initialized": jnp.asarray(True)}, latents,
        lambda out: jnp.sum(out.values * weights) + out.loss,
    )  # fmt: skip
    np.testing.assert_array_equal(out.ids, published_ids(f"{case}/indices"))
    close = {"rtol": 1e-5, "atol": 1e-5}
    np.testing.assert_allclose(out.values, channels_last(OUTPUTS[f"{case}/quantize"]), **close)
    np.testing.assert_allclose(out.loss, OUTPUTS[f"{case}/loss"][0], rtol=1e-5)
    np.testing.assert_allclose(gradient, channels_last(OUTPUTS[f"{case}/x_grad"]), **close)
    for ours in book:
        after, expected = np.array(updated[ours]), OUTPUTS[f"{case}/{names[ours]}_after"]
        if ours == "codes" and threshold and policy == "batch_random":
            dead = OUTPUTS[f"{case}/cluster_size_after"] < threshold
            unit = quantize.l2_normalize(jnp.asarray(latents.reshape(-1, made["dim"])))
            for code in after[dead]:  # random there and here: any unit latent of the batch
                assert np.abs(np.asarray(unit) - code).max(axis=1).min() < 1e-6
            after, expected = after[~dead], expected[~dead]
        np.testing.assert_allclose(after, expected, **close)


@pytest.mark.parametrize("case", MEMCODES_CASES)
def test_memcodes_match_the_published_evaluation(case):
    made = META[case]
    module = quantizers.Memcodes(
        num_codes=made["codebook_size"], latent_dim=made["dim"], num_heads=made["heads"]
    )
    names = {"codes": "codes", "to_keys": "to_k.weight", "to_values": "to_v.weight"}
    params = {ours: INPUTS[f"{case}/{theirs}"] for ours, theirs in names.items()}
    out = module.apply({"params": params}, channels_last(INPUTS[f"{case}/x"]))
    np.testing.assert_array_equal(out.ids, published_ids(f"{case}/eval_indices"))
    expected = channels_last(OUTPUTS[f"{case}/eval_quantize"])
    np.testing.assert_allclose(out.values, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("case", "metric"), [("kmeans_cosine", "cosine"), ("kmeans_euclid", "euclidean")]
)
def test_k_means_matches_the_published_one(case, metric):
    samples = jnp.asarray(INPUTS[f"{case}/samples"])
    means, sizes = kmeans.kmeans(samples, samples[:7], metric=metric)
    np.testing.assert_allclose(means, OUTPUTS[f"{case}/means"], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(sizes, OUTPUTS[f"{case}/bins"])


def test_a_sharded_batch_updates_the_codebook_like_the_whole_batch():
    module = quantizers.EMACodebook(num_codes=8, latent_dim=4, decay=0.5)
    latents = jax.random.normal(jax.random.key(0), (32, 4))
    book = module.init(jax.random.key(1), latents)["codebook"]
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    _, whole, expected = codebook_step(module, book, latents)
    _, shards, updated = codebook_step(module, book, jax.device_put(latents, sharding))
    np.testing.assert_array_equal(shards.ids, whole.ids)
    for name in expected:
        np.testing.assert_allclose(updated[name], expected[name], rtol=1e-5, atol=1e-6)
