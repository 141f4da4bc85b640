"""Masking of a batch inside the compiled step: which tokens are seen and which are predicted."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from fourm_jax.contracts import Batch, InputTokens, TargetTokens, TokenBatch
from fourm_jax.masking import permutation, plans, slots, span_targets
from fourm_jax.masking.mixture import Mixture
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.modalities.vocabulary import PUBLISHED, TextVocabulary

BUDGETS = ("fill", "reference")


def sample_tokens(
    key: jax.Array,
    batch: Batch,
    mixture: Mixture,
    *,
    specs: Sequence[ModalitySpec],
    inputs: Sequence[str],
    outputs: Sequence[str],
    num_inputs: int,
    num_targets: int,
    budget: str = "fill",
    vocabulary: TextVocabulary = PUBLISHED,
) -> TokenBatch:
    """Draw inputs and targets of every sample (docs/published.md#masking).

    Grids, globals and pixels: disjoint random cells. Texts: span masking with sentinels, inputs
    the masked text, targets the spans. Embeddings (inputs only): masked spans become one zero
    vector, see `InputTokens`.

    Args:
      key: one typed key for the batch, or one per sample [b] (`evaluation_keys`).
      batch: an entry per modality of `inputs` and `outputs`, and "mixture", the data set of each
        sample (default 0).
      specs: all modalities of the model; `modality` of a slot is an index into it.
      budget: "fill": what short, absent or fully kept modalities cannot use goes to the others,
        by their Dirichlet shares, and last to grids that have none (alpha 0), unless the mixture
        says `share_leftover` False. So slots stay empty only when the sample has no more cells.
        Targets are counted in slots. A sample of fewer usable tokens than slots shows as large a
        share of the grids that both sides can use as inputs have of the slots.
        "reference": as published, what cannot be used is lost, and text targets are counted with
        their first sentinel, which fills no slot.

    Raises:
      ValueError: unknown `budget` or modality, an output without vocabulary, a missing entry.
    """
    if budget not in BUDGETS:
        raise ValueError(f"budget {budget!r}, allowed: {BUDGETS}")
    layout = slots.layout(specs, inputs, outputs, vocabulary)
    samples = slots.stack(batch, layout)
    keys = key if key.ndim else jax.random.split(key, len(samples.mixture))

    def one(key, sample):
        noise = plans.draw_noise(key, layout)
        plan = plans.make_plan(noise, sample, mixture, layout, num_inputs, num_targets, budget)
        sizes = jnp.asarray(layout.sizes)

        def place(row, rank):
            return permutation.permute(rank, sizes[row], noise.cells[row])

        return (
            slots.input_slots(plan, sample, layout, num_inputs, place),
            slots.target_slots(plan, sample, layout, num_targets, place),
        )

    return _token_batch(jax.vmap(one)(keys, samples), batch, layout)


def fixed_tokens(
    batch: Batch,
    *,
    specs: Sequence[ModalitySpec],
    inputs: Sequence[str],
    outputs: Sequence[str],
    num_inputs: int | None = None,
    num_targets: int | None = None,
) -> TokenBatch:
    """Take all tokens of `inputs` as inputs and all of `outputs` as targets, without masking.

    Grids are in raster order, texts in reading order. Input texts are whole, with [EOS]; target
    texts begin with [S_1] as first decoder input and end with the sentinel after [EOS], as in
    training (ml-4m: TransferMasking).

    Args:
      num_inputs, num_targets: slots; default as many as the longest sample can need.

    Raises:
      ValueError: unknown modality, one on both sides, an output without vocabulary, fewer slots
        than a sample can need.
    """
    both = sorted(set(inputs) & set(outputs))
    if both:
        raise ValueError(f"{both} cannot be inputs and outputs at once")
    layout = slots.layout(specs, inputs, outputs, PUBLISHED)
    sizes = {
        spec.name: spec.num_tokens + (spec.kind == "sequence" and spec.name in outputs)
        for spec in specs
    }
    num_inputs = _enough("num_inputs", num_inputs, sum(sizes[name] for name in inputs))
    num_targets = _enough("num_targets", num_targets, sum(sizes[name] for name in outputs))

    def one(sample):
        asked = layout.is_output[layout.spans]
        masked = jnp.broadcast_to(jnp.asarray(asked)[:, None], sample.ids.shape)
        spans = span_targets.find_spans(masked, sample.length)
        cells = sample.present * layout.sizes
        plan = slots.Plan(
            spans=spans,
            span_inputs=spans.num_inputs * ~asked,
            window_start=jnp.zeros_like(sample.length),
            window_size=spans.num_targets * asked,
            cell_inputs=cells * layout.is_input[layout.cells],
            cell_targets=cells * layout.is_output[layout.cells],
        )
        return (
            slots.input_slots(plan, sample, layout, num_inputs, lambda row, rank: rank),
            slots.target_slots(plan, sample, layout, num_targets, lambda row, rank: rank),
        )

    return _token_batch(jax.vmap(one)(slots.stack(batch, layout)), batch, layout)


def _enough(name: str, given: int | None, needed: int) -> int:
    if given is not None and given < needed:
        raise ValueError(f"{name} {given}: these modalities can need {needed} slots")
    return needed if given is None else given


def _token_batch(
    sides: tuple[InputTokens, TargetTokens], batch: Mapping[str, Any], layout: slots.Layout
) -> TokenBatch:
    used = [spec for i, spec in enumerate(layout.specs) if layout.is_input[i]]
    return TokenBatch(
        inputs=sides[0],
        targets=sides[1],
        pixels={s.name: batch[s.name]["pixels"] for s in used if s.kind == "pixels"},
        embeddings={s.name: batch[s.name]["embeddings"] for s in used if s.kind == "embedding"},
    )


def evaluation_keys(index: Int[Array, "b"], seed: int = 0) -> jax.Array:
    """Keys [b] for masks that depend on the index of a record and on nothing else."""
    return jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(seed)))(index)


def repeat(batch: Batch, times: int) -> Batch:
    """Repeat every row, so that each loaded record is masked `times` times: rows 0 0 1 1 ..."""
    return jax.tree.map(lambda x: jnp.repeat(x, times, axis=0), batch)
