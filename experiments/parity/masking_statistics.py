"""masking/stats_*.json: how many tokens our masking draws, beside the published distributions.

Both are samples, so that errors count in standard errors (of both samples together) and quantiles
may lie one token off where 2.5 % more or fewer of our draws would put them.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from experiments.parity import masking_cases
from experiments.parity import quantity as quantities
from experiments.parity.quantity import EXACT, Quantity
from fourm_jax.contracts import AnyArray, Batch, InputTokens, TargetTokens
from fourm_jax.masking import budgets, plans, slots
from fourm_jax.masking import mixture as mixture_lib
from fourm_jax.masking import sample as masking
from fourm_jax.modalities import registry
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.modalities.vocabulary import PUBLISHED
from fourm_jax.tokenizers.text import TextTokenizer

NUM_DRAWS, CHUNK = 12_288, 1_536
NUM_BUDGETS = 4_096
SIGMAS = (4.5, 0.0)
SLACK = 1e-3  # tokens: recorded means and variances are rounded
DESCRIPTION = (
    "config",
    "N",
    "pool_size",
    "input_tokens_range",
    "target_tokens_range",
    "sampling_weights",
    "modalities",
    "max_tokens",
    "alphas",
)


@flax.struct.dataclass
class Draws:
    """Masks of many samples.

    Attributes:
      shown, asked: tokens per modality.
      inputs, targets: the tokens themselves.
    """

    shown: Int[AnyArray, "*n m"]
    asked: Int[AnyArray, "*n m"]
    inputs: InputTokens
    targets: TargetTokens


def check(path: pathlib.Path, text: Callable[[], TextTokenizer]) -> Iterator[Quantity]:
    """Every distribution of one file; the texts to mask lie beside it in pool_*.json."""
    stats = json.loads(path.read_text())
    samples = json.loads(path.with_name(path.name.replace("stats_", "pool_", 1)).read_text())
    specs = registry.resolve("fourm", stats["modalities"])
    mixture = mixture_lib.make_mixture(specs, [read_mixture(stats)])
    drawn = draw(specs, mixture, masking_cases.pool(samples, stats["max_tokens"], text), stats)
    counts = {
        "input_tokens": dict(zip(stats["modalities"], drawn.shown.T, strict=True)),
        "target_tokens": dict(zip(stats["modalities"], drawn.asked.T, strict=True)),
        "total_input_tokens": drawn.shown.sum(1),
        "total_target_tokens": drawn.asked.sum(1),
        "active_input_modalities": (drawn.shown > 0).sum(1),
        "active_target_modalities": (drawn.asked > 0).sum(1),
    }
    for name, recorded in stats.items():
        if name in counts:
            yield from compare(name, counts[name], recorded)
        elif name == "sequences":
            for sequence, parts in recorded.items():
                index = stats["modalities"].index(sequence)
                yield from spans(f"{name}/{sequence}", drawn, index, parts)
        elif name == "budget_components":
            for number, component in enumerate(recorded):
                yield from component_budgets(f"{name}/{number}", specs, mixture, component, stats)
        elif name not in DESCRIPTION:
            yield from quantities.unknown([name])


def read_mixture(stats: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `mixture.make_mixture` as the recording describes them."""
    alphas = stats["alphas"]
    mixture = {
        "input_alphas": {name: table["input_alphas"] for name, table in alphas.items()},
        "target_alphas": {name: table["target_alphas"] for name, table in alphas.items()},
        "keep": {name: table["keep"] for name, table in alphas.items() if table["keep"]},
        "input_range": stats["input_tokens_range"],
        "target_range": stats["target_tokens_range"],
    }
    weights = stats["sampling_weights"]
    return mixture if weights is None else {**mixture, "weights": weights}


def draw(
    specs: Sequence[ModalitySpec],
    mixture: mixture_lib.Mixture,
    pool: Mapping[str, Mapping[str, np.ndarray]],
    stats: Mapping[str, Any],
) -> Draws:
    """Mask the texts of the pool, again and again, with budget="reference"."""
    names = [spec.name for spec in specs]
    outputs = [spec.name for spec in specs if spec.is_token]
    layout = slots.layout(specs, names, outputs, PUBLISHED)
    num_inputs, num_targets = stats["input_tokens_range"][1], stats["target_tokens_range"][1]
    samples = slots.stack(pool_batch(specs, pool, CHUNK), layout)

    @jax.jit
    def mask(keys: Key[Array, "n"]) -> Draws:
        def one(key: Key[Array, ""], sample: slots.Sample) -> Draws:
            noise = plans.draw_noise(key, layout)
            sizes = (num_inputs, num_targets)
            plan = plans.make_plan(noise, sample, mixture, layout, *sizes, "reference")
            place = lambda row, rank: rank  # noqa: E731
            return Draws(
                layout.per_modality(plan.span_inputs, plan.cell_inputs),
                layout.per_modality(plan.window_size, plan.cell_targets),
                slots.input_slots(plan, sample, layout, num_inputs, place),
                slots.target_slots(plan, sample, layout, num_targets, place),
            )

        return jax.vmap(one)(keys, samples)

    chunks = [
        jax.tree.map(np.asarray, mask(masking.evaluation_keys(jnp.arange(CHUNK) + first)))
        for first in range(0, NUM_DRAWS, CHUNK)
    ]
    drawn = jax.tree.map(lambda *parts: np.concatenate(parts), *chunks)
    # shares of vectors, which nothing can predict, are lost
    return dataclasses.replace(
        drawn, asked=drawn.asked * np.array([spec.is_token for spec in specs])
    )


def pool_batch(
    specs: Sequence[ModalitySpec], pool: Mapping[str, Mapping[str, np.ndarray]], size: int
) -> Batch:
    """The texts of a pool in turn; what the other modalities hold does not matter."""
    batch: dict[str, Any] = {}
    for spec in specs:
        if spec.kind in slots.SPAN_KINDS:
            texts = pool[spec.name]
            rows = np.arange(size) % len(texts["length"])
            batch[spec.name] = {key: value[rows] for key, value in texts.items()}
        else:
            ids = np.zeros((size, spec.num_tokens), np.int32)
            batch[spec.name] = {"ids": ids, "present": np.ones(size, bool)}
    return batch


def spans(name: str, drawn: Draws, index: int, recorded: Mapping[str, Any]) -> Iterator[Quantity]:
    """Sentinels, ends and lengths of the masked spans of one text modality."""
    in_inputs, in_targets = (
        side.valid & (side.modality == index) for side in (drawn.inputs, drawn.targets)
    )
    sentinels = _is_sentinel(drawn.targets.id) & in_targets
    counts = {
        "sentinels_in_input": (_is_sentinel(drawn.inputs.id) & in_inputs).sum(1),
        # the first entry of a target is a sentinel that no slot predicts
        "sentinels_in_target": sentinels.sum(1) + (drawn.asked[:, index] > 0),
        "span_length_between_sentinels_in_target": closed_spans(sentinels, in_targets),
    }
    for part, value in recorded.items():
        if part in counts:
            yield from compare(f"{name}/{part}", counts[part], value)
        elif part == "frac_target_contains_eos":
            has_end = ((drawn.targets.id == PUBLISHED.eos_id) & in_targets).any(1)
            error = (0.25 * (1 / len(has_end) + 1 / 10_000)) ** 0.5
            yield Quantity(f"{name}/{part}", (has_end.mean() - value) / error, 0.0, SIGMAS)
        else:
            yield from quantities.unknown([f"{name}/{part}"])


def closed_spans(
    sentinels: Bool[AnyArray, "n m"], is_text: Bool[AnyArray, "n m"]
) -> Int[np.ndarray, "k"]:
    """Lengths of all spans that a following sentinel closes."""
    lengths: list[int] = []
    for row, own_slots in zip(sentinels, is_text, strict=True):
        lengths.extend(np.diff(np.flatnonzero(row[own_slots]), prepend=-1) - 1)
    return np.array(lengths, np.int64)


def component_budgets(
    name: str,
    specs: Sequence[ModalitySpec],
    mixture: mixture_lib.Mixture,
    recorded: Mapping[str, Any],
    stats: Mapping[str, Any],
) -> Iterator[Quantity]:
    """Token budgets of one component of the mixture."""
    k = recorded["component"]
    alphas = np.stack([mixture.input_alphas[0, k], mixture.target_alphas[0, k]])
    extras = np.stack([mixture.input_extras[0, k], mixture.target_extras[0, k]])
    num_inputs, num_targets = stats["input_tokens_range"], stats["target_tokens_range"]
    draw_budgets = _budgets(tuple(specs), (tuple(num_inputs), tuple(num_targets)))
    budget = np.asarray(draw_budgets(alphas, extras))
    most = np.array([spec.num_tokens for spec in specs])
    is_text = np.array([spec.kind in slots.SPAN_KINDS for spec in specs])
    shown = np.minimum(budget[:, 0], most)
    asked = np.minimum(budget[:, 1], np.where(is_text, most, most - shown))
    names = stats["modalities"]
    counts = {
        "input_budget": dict(zip(names, shown.T, strict=True)),
        "target_budget": dict(zip(names, asked.T, strict=True)),
        "input_budget_total": shown.sum(1),
        "target_budget_total": asked.sum(1),
    }
    for part, value in recorded.items():
        if part in counts:
            yield from compare(f"{name}/{part}", counts[part], value)
        elif part != "component":
            yield from quantities.unknown([f"{name}/{part}"])


@functools.cache
def _budgets(
    specs: tuple[ModalitySpec, ...], ranges: tuple[tuple[int, int], tuple[int, int]]
) -> Callable:
    """Budgets of many samples, whose numbers of inputs and targets are drawn from `ranges`."""
    layout = slots.layout(specs, [], [], PUBLISHED)
    keys = masking.evaluation_keys(jnp.arange(NUM_BUDGETS), seed=1)

    def split(
        key: Key[Array, ""], alphas: Float[Array, "2 m"], probabilities: Float[Array, "2 m"]
    ) -> Int[Array, "2 m"]:
        noise = plans.draw_noise(key, layout)
        few, many = jnp.array(ranges).T
        totals = few + (noise.num_tokens * (many - few + 1)).astype(jnp.int32)
        gammas, extras = plans.draw_shares(noise, alphas, probabilities)
        share = jax.vmap(budgets.shares)(gammas, jnp.full(gammas.shape, True))
        return jax.vmap(budgets.split)(share, totals, extras)

    return functools.partial(jax.jit(jax.vmap(split, in_axes=(0, None, None))), keys)


def compare(name: str, counts: Any, recorded: Mapping[str, Any]) -> Iterator[Quantity]:
    """One count, or one per modality: {modality: counts} beside {modality: distribution}."""
    if "std_err_of_mean" in recorded:
        counts, recorded = {"": counts}, {"": recorded}
    if set(counts) != set(recorded):
        yield Quantity(name, sorted(counts), sorted(recorded))
        return
    errors = [standard_errors(counts[key], recorded[key]) for key in recorded]
    yield Quantity(f"{name} (standard errors)", errors, np.zeros((len(errors), 3)), SIGMAS)
    outside = [tokens_outside(counts[key], recorded[key]["quantiles"]) for key in recorded]
    yield Quantity(f"{name} (quantiles)", outside, np.zeros(len(outside)), EXACT)


def standard_errors(values: Int[np.ndarray, "n"], recorded: Mapping[str, Any]) -> list[float]:
    """How far mean, variance and share of zeros lie from the recorded ones, in standard errors."""
    counts, n, other = values.astype(np.float64), len(values), recorded["n"]
    fourth = ((counts - counts.mean()) ** 4).mean()
    share = recorded["frac_zero"]
    pairs = (
        (
            counts.mean() - recorded["mean"],
            np.hypot(counts.std() / n**0.5, recorded["std_err_of_mean"]),
        ),
        (
            counts.var() - recorded["var"],
            ((fourth - counts.var() ** 2) * (1 / n + 1 / other)) ** 0.5,
        ),
    )
    found = [max(abs(off) - SLACK, 0) / max(error, 1e-9) for off, error in pairs]
    error = (max(share * (1 - share), 1e-3) * (1 / n + 1 / other)) ** 0.5
    return [*found, abs((counts == 0).mean() - share) / error]


def tokens_outside(values: Int[np.ndarray, "n"], quantiles: Mapping[str, float]) -> float:
    """Largest distance of a recorded quantile from where ours may be; 0 if all are inside."""
    worst = 0.0
    for quantile, value in quantiles.items():
        share = float(quantile)
        if 0 < share < 1:  # extremes depend on how many were drawn
            low, high = np.quantile(values, np.clip([share - 0.025, share + 0.025], 0, 1))
            worst = max(worst, low - 1 - value, value - high - 1)
    return worst


def _is_sentinel(ids: Int[AnyArray, "n m"]) -> Bool[AnyArray, "n m"]:
    first = PUBLISHED.sentinel_id(1)
    return (ids >= first) & (ids < first + PUBLISHED.num_sentinels - 1)
