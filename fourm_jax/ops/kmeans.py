"""Lloyd's k-means with a fixed number of iterations, to start a codebook from a batch."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fourm_jax.ops import quantize


def kmeans(
    samples: Float[Array, "n d"],
    means: Float[Array, "k d"],
    *,
    metric: quantize.Metric,
    num_iterations: int = 10,
) -> tuple[Float[Array, "k d"], Float[Array, "k"]]:
    """Return the means after `num_iterations` and the sizes of the last assignment.

    Means without samples stay where they are. With the cosine metric samples should be unit
    vectors; means are unit vectors after every iteration.
    """

    def iterate(_, carry):
        means, _ = carry
        ids = quantize.nearest(samples, means, metric)
        counts, sums = quantize.counts_and_sums(samples, ids, means.shape[0])
        updated = sums / jnp.maximum(counts, 1)[:, None]
        if metric == "cosine":
            updated = quantize.l2_normalize(updated)
        return jnp.where((counts > 0)[:, None], updated, means), counts

    start = (means.astype(jnp.float32), jnp.zeros(means.shape[0], jnp.float32))
    return jax.lax.fori_loop(0, num_iterations, iterate, start)
