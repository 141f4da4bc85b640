"""What masking draws: budgets filled, shares in proportion, every place equally likely.

Distributions beside the published ones are in test_masking_goldens.
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np

from configs import mixtures
from experiments.parity import masking_cases, masking_statistics
from fourm_jax.masking import budgets, permutation
from fourm_jax.masking import mixture as mixture_lib
from fourm_jax.masking import sample as masking
from fourm_jax.modalities import registry
from tests import golden_cases


def test_fill_leaves_hardly_a_slot_empty_on_the_21_modality_mix():
    folder = golden_cases.shipped("masking")
    stats, samples = (
        json.loads((folder / f"{name}_mod21_capT5bias.json").read_text())
        for name in ("stats", "pool")
    )
    names = stats["modalities"]
    specs = registry.resolve("fourm", names)
    mixture = mixture_lib.make_mixture(specs, [mixtures.mod21()])
    pool = masking_cases.pool(samples, stats["max_tokens"], None)
    batch = masking_statistics.pool_batch(specs, pool, 480)
    batch["rgb@224"]["pixels"] = np.zeros((480, 1, 1, 3), np.uint8)  # nobody reads them
    batch["t5_caption"]["embeddings"] = np.zeros((480, 1, 1), np.float32)
    sample = functools.partial(
        masking.sample_tokens,
        specs=specs,
        inputs=names,
        outputs=[spec.name for spec in specs if spec.is_token],
        num_inputs=256,
        num_targets=256,
    )
    tokens = jax.jit(sample)(jax.random.key(0), batch, mixture)
    assert tokens.inputs.valid.mean() >= 0.98
    assert tokens.targets.valid.mean() >= 0.95


def test_the_rest_goes_to_the_largest_of_a_dirichlet_draw_in_proportion():
    rng = np.random.default_rng(0)
    cases = ([0.5, 0.5, 0.5], [5.0, 0.2, 1.0], [10.0, 10.0, 0.05], [1000.0, 0.5, 0.0])
    for alphas in map(np.array, cases):
        log_draws = np.log(rng.gamma(np.maximum(alphas, 1e-3) + 1, size=(100_000, 3)))
        log_draws += np.log(rng.random((100_000, 3))) / np.maximum(alphas, 1e-3)
        expected = np.bincount(log_draws.argmax(1), minlength=3) / 100_000
        np.testing.assert_allclose(budgets.argmax_probabilities(alphas), expected, atol=0.006)


def test_every_cell_is_equally_likely_at_every_rank():
    cells, num_draws = 36, 20_000
    rank = jnp.arange(cells)
    seeds = jax.random.bits(jax.random.key(0), (num_draws,))
    sizes = jnp.full(cells, cells)
    place = jax.jit(jax.vmap(lambda s: permutation.permute(rank, sizes, jnp.full(cells, s))))
    orders = np.asarray(place(seeds))
    np.testing.assert_array_equal(np.sort(orders, axis=1), np.broadcast_to(rank, orders.shape))
    counts = np.stack([np.bincount(column, minlength=cells) for column in orders.T])
    deviation = (counts - num_draws / cells) / (num_draws / cells) ** 0.5
    assert np.abs(deviation).max() < 5  # of 1,296 nearly normal numbers
    # Which cells are chosen together: pairs among the first 6 ranks, as in sampling by lot.
    chosen = (orders[:, :6, None] == np.arange(cells)).any(1).astype(np.float64)
    pairs = (chosen.T @ chosen)[np.triu_indices(cells, 1)]
    expected = num_draws * 6 * 5 / (cells * (cells - 1))
    assert np.abs(pairs - expected).max() < 5 * expected**0.5
    assert abs(pairs.var() / expected - 1) < 0.25
