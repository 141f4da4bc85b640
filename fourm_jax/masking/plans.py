"""Which tokens of one sample are inputs and targets: component, budgets, spans, windows."""

import math

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from fourm_jax.contracts import AnyArray
from fourm_jax.masking import budgets, slots, span_targets
from fourm_jax.masking.mixture import Mixture

GAMMA_TRIES = 6
SPAN_TRIES = 64


@flax.struct.dataclass
class Noise:
    """All random numbers of one sample (m modalities, s texts of l tokens, g cell modalities).

    They come from one call of the generator: a dozen calls take longer to compile than all the
    rest of masking. Floats are uniform in (0, 1).
    """

    component: Float[Array, ""]
    num_tokens: Float[Array, "2"]
    gammas: Float[Array, "2 t 2 m"]
    boost: Float[Array, "2 m"]
    extras: Float[Array, "2 m"]
    keep: Float[Array, "s"]
    window: Float[Array, "s"]
    tokens: UInt32[Array, "s l"]
    tries: UInt32[Array, "2 r"]
    cells: UInt32[Array, "g"]


def draw_noise(key: jax.Array, layout: slots.Layout) -> Noise:
    """Draw the random numbers of one sample."""
    m, s, g = len(layout.specs), len(layout.spans), len(layout.cells)
    uniform: dict[str, tuple[int, ...]] = {
        "component": (),
        "num_tokens": (2,),
        "gammas": (2, GAMMA_TRIES, 2, m),
        "boost": (2, m),
        "extras": (2, m),
        "keep": (s,),
        "window": (s,),
    }
    bits: dict[str, tuple[int, ...]] = {
        "tokens": (s, layout.span_size),
        "tries": (2, SPAN_TRIES),
        "cells": (g,),
    }
    shapes = uniform | bits
    ends = np.cumsum([math.prod(shape) for shape in shapes.values()])
    parts = jnp.split(jax.random.bits(key, (int(ends[-1]),)), ends[:-1])
    arrays = {
        name: part.reshape(shape) for part, (name, shape) in zip(parts, shapes.items(), strict=True)
    }
    for name in uniform:
        arrays[name] = ((arrays[name] >> 9).astype(jnp.float32) + 0.5) * 2.0**-23
    return Noise(**arrays)


def make_plan(
    noise: Noise,
    sample: slots.Sample,
    mixture: Mixture,
    layout: slots.Layout,
    num_inputs: int,
    num_targets: int,
    budget: str,
) -> slots.Plan:
    """Turn the noise of one sample into component, budgets, masked spans and windows."""
    fill = budget == "fill"
    row, num_in, num_tgt = _pick(noise, sample.mixture, mixture, num_inputs, num_targets)
    alphas = jnp.stack([row.input_alphas, row.target_alphas])
    gammas, extras = draw_shares(noise, alphas, jnp.stack([row.input_extras, row.target_extras]))
    spans, cells = layout.spans, layout.cells
    most = np.array([spec.num_tokens for spec in layout.specs])
    num_cells = sample.present * layout.sizes
    sides = jnp.asarray([layout.is_input, layout.is_output])
    usable = sides[:, cells] & (row.share_leftover | (alphas[:, cells] > 0))
    room = num_cells * usable[0]
    if fill:
        text_usable = sides[:, spans] & (alphas[:, spans] > 0)
        num_tokens = (sample.length * text_usable.any(0)).sum() + (num_cells * usable.any(0)).sum()
        kept_back = _keep_back(room, usable.all(0), num_in, num_tgt, noise.cells[0])
        room = jnp.where(num_tokens < num_in + num_tgt, kept_back, room)

    # Inputs: budgets, then the texts (which may need less), then cells with what is left.
    exists: AnyArray = layout.per_modality(sample.length, room) if fill else most
    grant = _grant(gammas[0], alphas[0], extras[0], num_in, exists * layout.is_input, fill)
    allowed = grant[spans]
    keep_prob = _keep_prob(noise.keep, row.keep[spans]) * (allowed > 0)
    masked = span_targets.choose_masked(
        noise.tokens, noise.tries, keep_prob, allowed, sample.length, sample.chunk
    )
    found = span_targets.find_spans(masked, sample.length)
    span_inputs = jnp.where(allowed > 0, found.num_inputs, 0)
    cell_inputs = jnp.minimum(grant[cells], room)
    if fill:
        rest = num_in - span_inputs.sum()
        cell_inputs = budgets.redistribute(cell_inputs, room, rest, gammas[0][cells])

    # Targets: the same, with room for what the inputs do not show.
    if fill:
        spans_left = jnp.maximum(found.num_targets - 1, 0)
        free = layout.per_modality(spans_left, num_cells - cell_inputs) * layout.is_output
    else:
        free = jnp.asarray(most) - layout.per_modality(jnp.zeros_like(allowed), grant[cells])
    grant = _grant(gammas[1], alphas[1], extras[1], num_tgt, free, fill)
    allowed = grant[spans] * layout.is_output[spans]
    allowed += fill & (allowed > 0)  # t entries of a target fill t - 1 slots
    num_choices = jnp.maximum(found.run[:, -1], 1)  # the last sentinel only if it is the only one
    chosen = (noise.window * num_choices).astype(jnp.int32)
    start, size = span_targets.choose_window(found, allowed, chosen)
    room = (num_cells - cell_inputs) * usable[1]
    cell_targets = jnp.minimum(grant[cells], room)
    if fill:
        rest = num_tgt - jnp.maximum(size - 1, 0).sum()
        cell_targets = budgets.redistribute(cell_targets, room, rest, gammas[1][cells])
    return slots.Plan(found, span_inputs, start, size, cell_inputs, cell_targets)


def draw_shares(
    noise: Noise, alphas: Float[Array, "2 m"], probabilities: Float[Array, "2 m"]
) -> tuple[Float[Array, "2 m"], Int[Array, "2 m"]]:
    """Log gammas of the shares of both sides, and the modality of each token of the rest."""
    normal = jax.scipy.special.ndtri(noise.gammas[0])
    gammas = budgets.log_gammas(alphas, normal, noise.gammas[1], noise.boost)
    below = jnp.cumsum(probabilities, axis=1)[:, None, :] <= noise.extras[:, :, None]
    return gammas, jnp.sum(below, axis=2)


def _pick(
    noise: Noise, dataset: Int[Array, ""], mixture: Mixture, num_inputs: int, num_targets: int
) -> tuple[Mixture, Int[Array, ""], Int[Array, ""]]:
    """Row of one component of the sample's data set, and its numbers of inputs and targets."""
    mixture = jax.tree.map(lambda table: jnp.asarray(table)[dataset], mixture)
    end = jnp.cumsum(mixture.weights)
    component = jnp.sum(end <= noise.component * end[-1])
    row = jax.tree.map(lambda table: table[component], mixture)

    def number(noise: Float[Array, ""], bounds: Int[Array, "2"], most: int) -> Int[Array, ""]:
        few, many = jnp.minimum(bounds, most)
        return few + (noise * (many - few + 1)).astype(jnp.int32)

    num_in = number(noise.num_tokens[0], row.input_range, num_inputs)
    return row, num_in, number(noise.num_tokens[1], row.target_range, num_targets)


def _keep_back(
    room: Int[Array, "g"],
    shared: Bool[Array, "g"],
    num_in: Int[Array, ""],
    num_tgt: Int[Array, ""],
    bits: UInt32[Array, ""],
) -> Int[Array, "g"]:
    """Room for inputs in a sample of fewer tokens than slots.

    Inputs come first and would take all cells, with nothing left to predict. So the cells that both
    sides can use are divided as the slots are. They are counted through all grids from a random
    fraction on, so that a grid of one cell is seen as often as any other cell.

    Args:
      shared: grids that both sides can use.
      bits: random.
    """
    num_slots = jnp.maximum(num_in + num_tgt, 1)
    start = (bits % num_slots.astype(jnp.uint32)).astype(jnp.int32)
    end = jnp.cumsum(jnp.where(shared, room, 0))
    shown = jnp.diff((end * num_in + start) // num_slots, prepend=0)
    return jnp.where(shared, shown, room)


def _grant(
    gammas: Float[Array, "m"],
    alphas: Float[Array, "m"],
    extras: Int[Array, "m"],
    total: Int[Array, ""],
    capacity: Int[AnyArray, "m"],
    fill: bool,
) -> Int[Array, "m"]:
    """Budgets of all modalities; with `fill`, those that have a share take what others cannot."""
    if not fill:
        share = budgets.shares(gammas, jnp.full(gammas.shape, True))
        return jnp.minimum(budgets.split(share, total, extras), capacity)
    capacity = jnp.where(alphas > 0, capacity, 0)
    budget = budgets.split(budgets.shares(gammas, capacity > 0), total, extras)
    return budgets.redistribute(budget, capacity, total, gammas)


def _keep_prob(noise: Float[Array, "s"], scheme: Int[Array, "s"]) -> Float[Array, "s"]:
    choices = jnp.stack([noise, jnp.ones_like(noise), (noise < 0.5) * 1.0])  # as KEEP_SCHEMES
    return choices[scheme, jnp.arange(len(scheme))]
