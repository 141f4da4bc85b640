"""Reading the published sampler's working state and schedules, to run or to compare with it.

A "mod dict" holds per modality `tensor`, `input_mask` and `target_mask`, True = *not* used
(docs/published.md#trunk, docs/published.md#generation).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from fourm_jax.generate.schedule import Step
from fourm_jax.generate.state import Specs, State, index_of

ModDict = Mapping[str, Mapping[str, np.ndarray]]


def read_state(mod_dict: ModDict, specs: Specs) -> State:
    """State that equals a mod dict; pixel tensors are [b, c, h, w], already normalized.

    Raises:
      ValueError: a modality that is not in `specs`.
    """
    state = State(ids={}, known={}, pixels={}, embeddings={})
    for name, entry in mod_dict.items():
        kind = specs[index_of(specs, name)].kind
        known = ~np.asarray(entry["input_mask"], bool)
        tensor = np.asarray(entry["tensor"])
        if kind == "sequence":
            tensor, known = _to_the_front(tensor, known)
        ids: np.ndarray = np.zeros(known.shape, np.int32)
        if kind == "pixels":
            images = jnp.asarray(tensor.transpose(0, 2, 3, 1), jnp.float32)
            state = dataclasses.replace(state, pixels={**state.pixels, name: images})
        elif kind == "embedding":
            state = dataclasses.replace(
                state, embeddings={**state.embeddings, name: jnp.asarray(tensor)}
            )
            ids = ids + 1 + np.arange(known.shape[1], dtype=np.int32)
        else:
            ids = tensor.reshape(known.shape).astype(np.int32)
        state = state.with_tokens(name, jnp.asarray(ids), jnp.asarray(known))
    return state


def _to_the_front(tensor: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Visible entries of each row first, cut to the longest row."""
    order = np.argsort(~known, axis=1, kind="stable")[:, : max(known.sum(axis=1).max(), 1)]
    rows = np.arange(len(known))[:, None]
    return tensor[rows, order], known[rows, order]


def read_steps(schedule: Sequence[Mapping[str, Any]]) -> tuple[Step, ...]:
    """Steps of a published schedule (a flat list of dictionaries)."""
    return tuple(
        Step(
            target=step["target_domain"],
            scheme=step["scheme"],
            num_tokens=step["num_tokens"] or 0,
            temperature=step["temperature"],
            guidance=tuple(step["cfg_scale"])
            if isinstance(step["cfg_scale"], list | tuple)
            else step["cfg_scale"],
            guided=tuple(step["cfg_cond_domains"]),
        )
        for step in schedule
    )


def read_limits(mod_dict: ModDict, specs: Specs) -> tuple[dict[str, int], dict[str, int]]:
    """Most new tokens and the end token of every sequence that is still to be generated.

    The published sampler runs for as many steps as there are target positions and stops at the
    last target token of the first row.
    """
    max_new, end_ids = {}, {}
    for name, entry in mod_dict.items():
        spec = specs[index_of(specs, name)]
        targets = ~np.asarray(entry["target_mask"], bool)
        if spec.kind == "sequence" and targets.any():
            max_new[name] = min(int(targets[0].sum()), spec.max_tokens)
            end_ids[name] = int(np.asarray(entry["tensor"])[0][targets[0]][-1])
    return max_new, end_ids
