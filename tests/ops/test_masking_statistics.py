"""budget="reference" draws what the published code draws: 17 modalities, 3 mixtures, 20,000 masks.

Tolerances: means, variances and shares of zeros within 4.5 standard errors (of both samples
together); quantiles within one token of where 2.5 % more or fewer of the draws would put them.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import mixtures
from fourm_jax.modalities import registry
from fourm_jax.modalities.vocabulary import PUBLISHED
from fourm_jax.ops import budgets, masking, permutation, plans, slots
from fourm_jax.ops import mixture as mixture_lib
from tests.ops import masking_goldens

MIXTURES = {
    "mod7_a0.5": mixtures.mod7_rgb2all,
    "mod7_capbias": mixtures.mod7_capbias,
    "mod21_capT5bias": mixtures.mod21,
}
NUM_DRAWS, CHUNK = 12_288, 1_536  # multiples of the 48 samples of a pool
SIGMAS = 4.5


def pool_batch(specs, pool, size):
    """The recorded texts, again and again; what the other modalities hold does not matter."""
    rows = np.arange(size) % 48
    batch = {}
    for spec in specs:
        if spec.kind in slots.SPAN_KINDS:
            batch[spec.name] = {key: value[rows] for key, value in pool[spec.name].items()}
        else:
            ids = np.zeros((size, spec.num_tokens), np.int32)
            batch[spec.name] = {"ids": ids, "present": np.ones(size, bool)}
    return batch


@functools.cache
def draws(config):
    """Per modality and draw: tokens shown and asked for, sentinels, [EOS], lengths of spans."""
    _, stats, pools = masking_goldens.load(full=False)
    stats, names = stats[config], stats[config]["modalities"]
    specs = registry.resolve("fourm", names)
    outputs = [spec.name for spec in specs if spec.is_token]
    layout = slots.layout(specs, names, outputs, PUBLISHED)
    mixture = mixture_lib.make_mixture(specs, [MIXTURES[config]()])
    most = stats["input_tokens_range"][1]
    samples = slots.stack(pool_batch(specs, pools[config], CHUNK), layout)

    @jax.jit
    def draw(keys):
        def one(key, sample):
            noise = plans.draw_noise(key, layout)
            plan = plans.make_plan(noise, sample, mixture, layout, most, most, "reference")
            place = lambda row, rank: rank  # noqa: E731
            shown = slots.input_slots(plan, sample, layout, most, place)
            asked = slots.target_slots(plan, sample, layout, most, place)
            counts = (
                layout.per_modality(plan.span_inputs, plan.cell_inputs),
                layout.per_modality(plan.window_size, plan.cell_targets),
            )
            return counts, shown, asked

        return jax.vmap(one)(keys, samples)

    chunks = [
        jax.tree.map(np.asarray, draw(masking.evaluation_keys(jnp.arange(CHUNK) + first)))
        for first in range(0, NUM_DRAWS, CHUNK)
    ]
    (shown, asked), inputs, targets = jax.tree.map(lambda *parts: np.concatenate(parts), *chunks)
    asked *= np.array([spec.is_token for spec in specs])  # shares of T5 are lost
    return stats, specs, shown, asked, inputs, targets


def compare(values, recorded, what):
    """Assert that draws of a count have the recorded distribution."""
    values, n = np.asarray(values, np.float64), len(values)
    error = np.hypot(values.std() / n**0.5, recorded["std_err_of_mean"])
    assert abs(values.mean() - recorded["mean"]) <= SIGMAS * error + 1e-3, (what, "mean")
    share = recorded["frac_zero"]
    error = (max(share * (1 - share), 1e-3) * (1 / n + 1 / recorded["n"])) ** 0.5
    assert abs((values == 0).mean() - share) <= SIGMAS * error, (what, "share of zeros")
    fourth = ((values - values.mean()) ** 4).mean()
    error = ((fourth - values.var() ** 2) * (1 / n + 1 / recorded["n"])) ** 0.5
    assert abs(values.var() - recorded["var"]) <= SIGMAS * error + 1e-3, (what, "variance")
    for quantile, value in recorded["quantiles"].items():
        low, high = np.quantile(values, np.clip(float(quantile) + np.array([-0.025, 0.025]), 0, 1))
        assert low - 1 <= value <= high + 1, (what, f"quantile {quantile}")


@pytest.mark.parametrize("config", sorted(MIXTURES))
def test_tokens_per_modality_are_distributed_as_published(config):
    stats, specs, shown, asked, *_ = draws(config)
    for i, spec in enumerate(specs):
        compare(shown[:, i], stats["input_tokens"][spec.name], f"{spec.name} inputs")
        compare(asked[:, i], stats["target_tokens"][spec.name], f"{spec.name} targets")


@pytest.mark.parametrize("config", sorted(MIXTURES))
def test_totals_and_active_modalities_are_distributed_as_published(config):
    stats, _, shown, asked, *_ = draws(config)
    compare(shown.sum(1), stats["total_input_tokens"], "inputs")
    compare(asked.sum(1), stats["total_target_tokens"], "targets")
    compare((shown > 0).sum(1), stats["active_input_modalities"], "active inputs")
    compare((asked > 0).sum(1), stats["active_target_modalities"], "active targets")


@pytest.mark.parametrize("config", sorted(MIXTURES))
def test_spans_and_sentinels_are_distributed_as_published(config):
    stats, specs, _, asked, inputs, targets = draws(config)
    first = PUBLISHED.sentinel_id(1)

    def is_sentinel(ids):
        return (ids >= first) & (ids < first + PUBLISHED.num_sentinels - 1)

    for i, spec in enumerate(specs):
        if spec.name not in stats["sequences"]:
            continue
        recorded = stats["sequences"][spec.name]
        mine = inputs.valid & (inputs.modality == i)
        compare((is_sentinel(inputs.id) & mine).sum(1), recorded["sentinels_in_input"], spec.name)
        mine = targets.valid & (targets.modality == i)
        sentinels = is_sentinel(targets.id) & mine
        # The first entry of a target is a sentinel that no slot predicts.
        compare(sentinels.sum(1) + (asked[:, i] > 0), recorded["sentinels_in_target"], spec.name)
        share = ((targets.id == PUBLISHED.eos_id) & mine).any(1).mean()
        error = (0.25 * (1 / len(mine) + 1 / 10_000)) ** 0.5
        assert abs(share - recorded["frac_target_contains_eos"]) <= SIGMAS * error, spec.name
        compare(
            closed_spans(sentinels, mine),
            recorded["span_length_between_sentinels_in_target"],
            f"{spec.name} spans",
        )


def closed_spans(sentinels, mine):
    """Lengths of all spans that a following sentinel closes."""
    lengths = []
    for row, slot_is_mine in zip(sentinels, mine, strict=True):
        closing = np.flatnonzero(row[slot_is_mine])
        lengths.extend(np.diff(closing, prepend=-1) - 1)
    return np.array(lengths)


@pytest.mark.parametrize("config", sorted(MIXTURES))
def test_budgets_of_each_component_are_distributed_as_published(config):
    stats, specs, *_ = draws(config)
    mixture = mixture_lib.make_mixture(specs, [MIXTURES[config]()])
    layout = slots.layout(specs, [], [], PUBLISHED)
    total = stats["input_tokens_range"][1]

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, None, None))
    def split(key, alphas, probabilities):
        gammas, extras = plans.draw_shares(plans.draw_noise(key, layout), alphas, probabilities)
        share = jax.vmap(budgets.shares)(gammas, jnp.full(gammas.shape, True))
        return jax.vmap(budgets.split, in_axes=(0, None, 0))(share, total, extras)

    keys = masking.evaluation_keys(jnp.arange(4_096), seed=1)
    most = np.array([spec.num_tokens for spec in specs])
    is_text = np.array([spec.kind in slots.SPAN_KINDS for spec in specs])
    for k, recorded in enumerate(stats["budget_components"]):
        alphas = np.stack([mixture.input_alphas[0, k], mixture.target_alphas[0, k]])
        extras = np.stack([mixture.input_extras[0, k], mixture.target_extras[0, k]])
        budget = np.asarray(split(keys, alphas, extras))
        shown = np.minimum(budget[:, 0], most)
        asked = np.minimum(budget[:, 1], np.where(is_text, most, most - shown))
        for i, spec in enumerate(specs):
            compare(shown[:, i], recorded["input_budget"][spec.name], f"{k} {spec.name} inputs")
            compare(asked[:, i], recorded["target_budget"][spec.name], f"{k} {spec.name} targets")


def test_fill_leaves_hardly_a_slot_empty_on_the_21_modality_mix():
    _, stats, pools = masking_goldens.load(full=False)
    names = stats["mod21_capT5bias"]["modalities"]
    specs = registry.resolve("fourm", names)
    mixture = mixture_lib.make_mixture(specs, [mixtures.mod21()])
    batch = pool_batch(specs, pools["mod21_capT5bias"], 480)
    batch["rgb@224"]["pixels"] = batch["t5_caption"]["embeddings"] = np.zeros(480)
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
    for alphas in ([0.5, 0.5, 0.5], [5.0, 0.2, 1.0], [10.0, 10.0, 0.05], [1000.0, 0.5, 0.0]):
        log_draws = np.log(rng.gamma(np.maximum(alphas, 1e-3) + 1, size=(100_000, 3)))
        log_draws += np.log(rng.random((100_000, 3))) / np.maximum(alphas, 1e-3)
        expected = np.bincount(log_draws.argmax(1), minlength=3) / 100_000
        np.testing.assert_allclose(budgets.argmax_probabilities(alphas), expected, atol=0.006)


def test_every_cell_is_equally_likely_at_every_rank():
    cells, num_draws = 36, 20_000
    rank = jnp.arange(cells)
    seeds = jax.random.bits(jax.random.key(0), (num_draws, 1))
    place = jax.jit(jax.vmap(lambda s: permutation.permute(rank, jnp.full(cells, cells), s)))
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
