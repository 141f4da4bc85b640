"""Vector quantization on plain arrays: assignment, running codebook averages, dead codes."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Metric = Literal["cosine", "euclidean"]
DeadCodePolicy = Literal["batch_random", "linde_buzo_gray"]
METRICS = ("cosine", "euclidean")
DEAD_CODE_POLICIES = ("batch_random", "linde_buzo_gray")
SHORTEST = 1e-12  # length below which a vector has no direction
SCORE_ELEMENTS = 2**25  # largest [tokens, codes] score matrix held at once


def l2_normalize(x: Float[Array, "... d"]) -> Float[Array, "... d"]:
    """Divide by the Euclidean length over the last axis; safe (zero gradient) at the origin."""
    squared = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(squared, SHORTEST**2))


def nearest(
    latents: Float[Array, "n d"], codes: Float[Array, "k d"], metric: Metric
) -> Int[Array, "n"]:
    """Return the index of the nearest code; the first one where several are equally near.

    Walks over blocks of codes, so that at most `SCORE_ELEMENTS` scores exist at once while the
    token axis stays whole (and sharded).
    """
    latents, codes = latents.astype(jnp.float32), codes.astype(jnp.float32)
    if metric == "cosine":
        latents, codes = l2_normalize(latents), l2_normalize(codes)
    num_latents, num_codes = latents.shape[0], codes.shape[0]
    block = min(num_codes, max(1, SCORE_ELEMENTS // max(num_latents, 1)))

    def best_of(block_codes):
        scores = jnp.einsum("nd,kd->nk", latents, block_codes, precision="highest")
        if metric == "euclidean":  # -|x - c|^2 up to the term that all codes share
            scores = 2 * scores - jnp.sum(jnp.square(block_codes), axis=-1)
        return jnp.max(scores, axis=-1), jnp.argmax(scores, axis=-1).astype(jnp.int32)

    best, ids = best_of(codes[:block])
    for start in range(block, num_codes, block):
        block_best, block_ids = best_of(codes[start : start + block])
        ids = jnp.where(block_best > best, block_ids + start, ids)
        best = jnp.maximum(block_best, best)
    return ids


def straight_through(
    latents: Float[Array, "... d"], quantized: Float[Array, "... d"]
) -> Float[Array, "... d"]:
    """Return `quantized` in the forward pass, with the gradient of `latents`."""
    return latents + jax.lax.stop_gradient(quantized - latents)


def counts_and_sums(
    latents: Float[Array, "n d"], ids: Int[Array, "n"], num_codes: int
) -> tuple[Float[Array, "k"], Float[Array, "k d"]]:
    """Return how many latents each code won and their sum, without a [n, k] one-hot."""
    counts = jax.ops.segment_sum(jnp.ones_like(ids, jnp.float32), ids, num_codes)
    return counts, jax.ops.segment_sum(latents.astype(jnp.float32), ids, num_codes)


def update_cosine(
    codes: Float[Array, "k d"],
    cluster_size: Float[Array, "k"],
    latents: Float[Array, "n d"],
    ids: Int[Array, "n"],
    *,
    decay: float,
    renormalize: bool,
) -> tuple[Float[Array, "k d"], Float[Array, "k"]]:
    """Move each code towards the mean direction of the unit `latents` it won.

    Codes without latents stay in their own direction. With `renormalize` codes stay on the unit
    sphere; without it (ml-4m, `quantize_lucid.py`) averaging unit vectors lets them shrink.
    """
    counts, sums = counts_and_sums(latents, ids, codes.shape[0])
    means = l2_normalize(sums / jnp.maximum(counts, 1)[:, None])
    targets = jnp.where((counts > 0)[:, None], means, l2_normalize(codes))
    codes = decay * codes + (1 - decay) * targets
    cluster_size = decay * cluster_size + (1 - decay) * counts
    return (l2_normalize(codes) if renormalize else codes), cluster_size


def update_euclidean(
    codes: Float[Array, "k d"],
    cluster_size: Float[Array, "k"],
    code_sums: Float[Array, "k d"],
    latents: Float[Array, "n d"],
    ids: Int[Array, "n"],
    *,
    decay: float,
    keep_unused: bool,
    epsilon: float = 1e-5,
) -> tuple[Float[Array, "k d"], Float[Array, "k"], Float[Array, "k d"]]:
    """Running k-means (van den Oord et al. 2017, appendix A.1): (codes, cluster_size, code_sums).

    Cluster sizes are Laplace-smoothed before dividing, so that the quotient is always finite. With
    `keep_unused` codes without latents stay where they are; without it (ml-4m,
    `quantize_lucid.py`) they sink to the origin as the smoothing outweighs their sizes.
    """
    counts, sums = counts_and_sums(latents, ids, cluster_size.shape[0])
    cluster_size = decay * cluster_size + (1 - decay) * counts
    code_sums = decay * code_sums + (1 - decay) * sums
    means = code_sums / laplace_smoothed(cluster_size, epsilon)[:, None]
    codes = jnp.where((counts > 0)[:, None], means, codes) if keep_unused else means
    return codes, cluster_size, code_sums


def laplace_smoothed(cluster_size: Float[Array, "k"], epsilon: float) -> Float[Array, "k"]:
    """Add `epsilon` to every size and rescale to the same total."""
    total = jnp.sum(cluster_size)
    return (cluster_size + epsilon) / (total + cluster_size.size * epsilon) * total


def replace_dead(
    key: jax.Array,
    codes: Float[Array, "k d"],
    cluster_size: Float[Array, "k"],
    latents: Float[Array, "n d"],
    *,
    threshold: float,
    policy: DeadCodePolicy,
    normalize: bool,
    noise: float = 1e-2,
    reset_size: float | None = None,
) -> tuple[Float[Array, "k d"], Float[Array, "k"]]:
    """Replace every code whose running cluster size fell below `threshold`.

    "batch_random" takes random `latents`; "linde_buzo_gray" takes the most used codes, the i-th
    dead one the i-th most used one, plus uniform `noise`. With `normalize` new codes have unit
    length (cosine codebooks; ml-4m: always). Replaced codes start again with cluster size
    `reset_size`; None keeps the old size (ml-4m: they are then replaced again at every step until
    they win enough latents).

    Raises:
      ValueError: unknown policy.
    """
    if policy not in DEAD_CODE_POLICIES:
        raise ValueError(f"dead-code policy {policy!r}, allowed: {DEAD_CODE_POLICIES}")
    dead = cluster_size < threshold
    if policy == "batch_random":
        candidates = _random_rows(key, latents, codes.shape[0])
    else:
        rank = jnp.clip(jnp.cumsum(dead) - 1, 0)
        most_used = jnp.argsort(-cluster_size)[rank]
        jitter = jax.random.uniform(key, codes.shape, minval=-noise, maxval=noise)
        candidates = codes[most_used] + jitter
    candidates = l2_normalize(candidates) if normalize else candidates
    codes = jnp.where(dead[:, None], candidates, codes)
    return codes, (
        cluster_size if reset_size is None else jnp.where(dead, reset_size, cluster_size)
    )


def _random_rows(key: jax.Array, rows: Float[Array, "n d"], count: int) -> Float[Array, "c d"]:
    if rows.shape[0] >= count:
        return rows[jax.random.permutation(key, rows.shape[0])[:count]]
    return rows[jax.random.randint(key, (count,), 0, rows.shape[0])]


def hard_gumbel(
    key: jax.Array, logits: Float[Array, "... k"], temperature: float = 1.0
) -> Float[Array, "... k"]:
    """Sample a one-hot choice whose gradient is that of the relaxed (softmax) sample.

    Straight-through Gumbel-softmax (Jang et al. 2017, section 2.2).
    """
    noisy = (logits + jax.random.gumbel(key, logits.shape, logits.dtype)) / temperature
    soft = jax.nn.softmax(noisy)
    hard = jax.nn.one_hot(jnp.argmax(noisy, axis=-1), logits.shape[-1], dtype=logits.dtype)
    return straight_through(soft, hard)


def usage_metrics(ids: Int[Array, "..."], num_codes: int) -> dict[str, Float[Array, ""]]:
    """Share of codes that occur in `ids` and exp(entropy) of their distribution, 1..num_codes."""
    counts = jax.ops.segment_sum(jnp.ones(ids.size, jnp.float32), ids.reshape(-1), num_codes)
    shares = counts / ids.size
    entropy = -jnp.sum(jnp.where(shares > 0, shares * jnp.log(jnp.maximum(shares, 1e-12)), 0))
    return {"codebook_usage": jnp.mean(counts > 0), "perplexity": jnp.exp(entropy)}
