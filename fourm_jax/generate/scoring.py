"""How likely the model finds values that are there already: agreement of modalities, verifiers."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from fourm_jax.generate import parallel, trunk
from fourm_jax.generate import state as states
from fourm_jax.generate.state import State
from fourm_jax.models.fourm import FourM


def log_likelihood(
    model: FourM,
    params: Any,
    state: State,
    name: str,
    ids: Int[np.ndarray, "b l"],
    known: Bool[np.ndarray, "b l"],
) -> Float[np.ndarray, "b"]:
    """Mean log probability (nats) per token of one modality, given the conditions of a state; NaN
    for a row without tokens.

    Sequences are read token by token, each after the true ones before it; tokens of grids and
    vectors are predicted in one pass, each without the others.

    Args:
      state: holds the conditions, and `name` as a target of which nothing is known.
      ids, known: the values, and which slots hold a token.
    """
    spec = model.modalities[states.index_of(model.modalities, name)]
    if spec.kind == "sequence":
        first = np.asarray(state.ids[name])[:, :1]
        tokens = jnp.asarray(np.concatenate([first, ids], axis=1))
        length = jnp.asarray(1 + known.sum(axis=1))
        return np.asarray(_of_sequence(model, params, state, tokens, length, name))
    probabilities = parallel.predict(model, params, state, [name])[name]
    chosen = np.take_along_axis(np.asarray(probabilities), ids[..., None], axis=-1)[..., 0]
    logs = np.log(np.maximum(chosen, 1e-30)) * known
    counts = known.sum(axis=1)
    return np.where(counts > 0, logs.sum(axis=1) / np.maximum(counts, 1), np.nan)


@functools.partial(jax.jit, static_argnames=("model", "name"))
def _of_sequence(
    model: FourM,
    params: Any,
    state: State,
    tokens: Int[Array, "b t"],
    length: Int[Array, "b"],
    name: str,
) -> Float[Array, "b"]:
    index = states.index_of(model.modalities, name)
    targets = states.sequence_targets(index, tokens, length)
    batch = states.token_batch([state], [targets], model.modalities)
    logs = jax.nn.log_softmax(trunk.tokens_to_logits(model, params, name)(batch), axis=-1)
    chosen = jnp.take_along_axis(logs, targets.id[..., None], axis=-1)[..., 0]
    return jnp.where(targets.valid, chosen, 0.0).sum(axis=1) / targets.valid.sum(axis=1)
