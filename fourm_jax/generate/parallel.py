"""Dense prediction: every token of one or several targets from one pass of the encoder."""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fourm_jax import contracts
from fourm_jax.generate import buckets
from fourm_jax.generate import state as states
from fourm_jax.generate.stages import Call
from fourm_jax.generate.state import State, Widths, index_of
from fourm_jax.models.fourm import FourM

Tree = TypeVar("Tree")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
    """What is static about a prediction: its targets, and the encoder slots of every modality (see
    `grids.GridStage`)."""

    targets: tuple[str, ...]
    input_widths: Widths = ()


def predict(
    model: FourM,
    params: Any,
    state: State,
    targets: Iterable[str],
    *,
    fit_slots: bool = True,
) -> dict[str, Float[Array, "b _l _v"]]:
    """Probabilities of all tokens of grid or global modalities, known ones included.

    No target sees another, so that each one is what it would be alone. The argmax is the cheapest
    prediction; the probabilities serve soft decoding.

    Args:
      state: conditions and targets; what is known of the targets is not read.
      fit_slots: see `chain.iterate`.
    """
    call = prediction_call(model, params, state, targets, fit_slots=fit_slots)
    probabilities: dict[str, Array] = call.function(*call.arguments)
    return probabilities


def prediction_call(
    model: FourM, params: Any, state: State, targets: Iterable[str], *, fit_slots: bool = True
) -> Call:
    """The call of `predict`; what it asks is the last argument."""
    targets = tuple(targets)
    for name in targets:
        state = state.with_tokens(name, state.ids[name], jnp.zeros_like(state.known[name]))
    widths: Widths = ()
    if fit_slots:
        known = buckets.known_range(state)
        widths = buckets.input_widths(state, known, written={}, hidden={})
    asked = Question(targets=targets, input_widths=widths)
    return Call(_predict, (model, params, state, asked))


@functools.partial(jax.jit, static_argnames=("model", "asked"))
def _predict(
    model: FourM, params: Any, state: State, asked: Question
) -> dict[str, Float[Array, "b _l _v"]]:
    specs, num_rows = model.modalities, state.batch_size

    def size_of(name: str) -> int:
        return state.ids[name].shape[1]

    def all_targets(module: FourM) -> dict[str, Float[Array, "b _l _v"]]:
        nothing = contracts.empty_targets(num_rows)
        batch = states.token_batch([state], [nothing], specs, asked.input_widths)
        encoded = module.encode(batch)
        probabilities = {}
        # Targets of one size share a pass of the decoder, each one in a row of its own; those of
        # a sample share the keys and values of its conditions.
        for size, group in itertools.groupby(sorted(asked.targets, key=size_of), size_of):
            names = tuple(group)
            positions = jnp.broadcast_to(jnp.arange(size), (num_rows, size))
            slots = [
                states.parallel_targets(index_of(specs, name), positions, positions >= 0)
                for name in names
            ]
            features = module.decode(encoded, _rows_of_samples(slots))
            for number, name in enumerate(names):
                part = features[number :: len(names)]
                probabilities[name] = jax.nn.softmax(module.logits(part, name), axis=-1)
        return probabilities

    result: Any = model.apply({"params": params}, method=all_targets)
    return result


def _rows_of_samples(parts: Sequence[Tree]) -> Tree:
    """Rows of all parts: the first row of each, then the second of each, …"""

    def mixed(*leaves: Array) -> Array:
        return jnp.stack(leaves, axis=1).reshape(-1, *leaves[0].shape[1:])

    return jax.tree.map(mixed, *parts)
