"""Guidance by several conditions, each with its own weight, several values of one modality too."""

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from fourm_jax.generate import state as states
from fourm_jax.generate.conditions import Entry
from fourm_jax.generate.schedule import Step
from fourm_jax.generate.state import State

GROWN = 1.0  # weight of a finished target, which guides those after it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guide:
    """A condition that pulls results towards it, or pushes them away.

    Attributes:
      name: modality.
      value: as of any condition.
      weight: above 1 strong, 0..1 weak, below 0 negative. Logits are l_0 + sum_i w_i (l_i - l_0),
        where l_0 sees none of the guides and l_i this one.
    """

    name: str
    value: Any
    weight: float

    def __post_init__(self):
        if not math.isfinite(self.weight):
            raise ValueError(f"guide {self.name!r}: weight {self.weight}, allowed: finite numbers")


def parse(text: str) -> tuple[str, str, float]:
    """(name, value, weight) of "name=value:weight".

    Raises:
      ValueError: another form, or a weight that is not finite.
    """
    name, given, rest = text.partition("=")
    value, colon, weight = rest.rpartition(":")
    try:
        number = float(weight)
    except ValueError:
        number = math.nan
    if not (given and colon and name and value and math.isfinite(number)):
        raise ValueError(f"guide {text!r}, allowed: NAME=VALUE:WEIGHT, as in caption=a red cone:3")
    return name, value, number


def add(state: State, entries: Sequence[tuple[str, Entry]], specs: states.Specs) -> State:
    """The state in which every branch of guidance sees its own guide.

    Args:
      state: holds each of the modalities as some guide has it.
      entries: of the guides, in the order of the branches.

    Raises:
      ValueError: several guides of a modality without ids, which has one value in all branches.
    """
    made = [(name, states.create({name: entry}, [], specs=specs)) for name, entry in entries]
    names = [name for name, _ in made]
    variants: dict[str, dict[str, tuple[Array, Array]]] = {}
    for name in dict.fromkeys(names):
        own = {str(n): one for n, (of, one) in enumerate(made, 1) if of == name}
        if len(own) == 1:
            continue
        if any(one.pixels or one.embeddings for one in own.values()):
            raise ValueError(
                f"{len(own)} guides of {name!r}, allowed: one of a modality without ids"
            )
        width = max(one.ids[name].shape[1] for one in own.values())
        padded = {}
        for branch, one in own.items():
            padding = ((0, 0), (0, width - one.ids[name].shape[1]))
            padded[branch] = jnp.pad(one.ids[name], padding), jnp.pad(one.known[name], padding)
            variants[branch] = {name: padded[branch]}
        state = state.with_tokens(name, *next(iter(padded.values())))
    return dataclasses.replace(state, variants=variants)


def check(guides: Sequence[Guide], conditions: Mapping[str, Any], targets: Sequence[str]) -> None:
    """Refuse guides of what is a condition or target.

    Raises:
      ValueError: names the modality.
    """
    for guide in guides:
        for what, names in (("condition", conditions), ("target", targets)):
            if guide.name in names:
                raise ValueError(f"{guide.name!r} is a guide and a {what}, allowed: one of both")


def weighted(
    steps: Sequence[Step], guides: Sequence[Guide], drafts: Collection[str] = ()
) -> list[Step]:
    """The steps with a weight for each guide, and `GROWN` for every target finished before.

    Drafts come first and follow the guides with positive weights alone, as strongly as their own
    steps say: a colour to stay away from does not move an object. All later branches see them.
    """
    weights = tuple(guide.weight for guide in guides)
    num_pulling = sum(weight > 0 for weight in weights)
    order = list(dict.fromkeys(step.target for step in steps if step.target not in drafts))

    def guidance(step: Step) -> tuple[float, ...]:
        if step.target not in drafts:
            return weights + (GROWN,) * order.index(step.target)
        own = cast(float, step.guidance) / num_pulling
        return tuple(own if weight > 0 else 0.0 for weight in weights)

    return [dataclasses.replace(step, guidance=guidance(step)) for step in steps]


def rows(guide: Guide, entry: Entry, num_rows: int) -> Entry:
    """The entry of a guide for all rows; one that is given once counts for each.

    Raises:
      ValueError: neither one row nor as many as there are.
    """
    size = len(next(iter(entry.values())))
    if size not in (1, num_rows):
        raise ValueError(f"guide {guide.name!r} has {size} rows, allowed: 1 or {num_rows}")
    return {key: np.repeat(a, num_rows // size, axis=0) for key, a in entry.items()}
