"""A batch of the published implementation as our TokenBatch, token for token in its order.

The published model takes whole padded modalities with masks (True = *not* used) and picks tokens
inside its forward pass (docs/published.md#trunk, docs/published.md#attention-masks);
here the same choice is made on the host.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from fourm_jax import contracts
from fourm_jax.contracts import InputTokens, TargetTokens, TokenBatch
from fourm_jax.modalities.spec import ModalitySpec

ModDict = Mapping[str, Mapping[str, np.ndarray]]


def from_mod_dict(
    mod_dict: ModDict,
    specs: Sequence[ModalitySpec],
    *,
    input_order: Sequence[str],
    target_order: Sequence[str],
    num_inputs: int,
    num_targets: int,
) -> TokenBatch:
    """Select tokens as the published forward pass does.

    Args:
      mod_dict: {modality: {"tensor", "input_mask", "target_mask", "decoder_attention_mask"}}.
        Modalities that the model does not have are left out, as are those missing here: images
        and vectors of the latter are zeros that no token shows.
      specs: the model's modalities; their order gives the modality indices.
      input_order, target_order: in which modalities are concatenated on either side; later ones
        lose tokens when the budget is full.
      num_inputs, num_targets: slots on either side.
    """
    index = {spec.name: i for i, spec in enumerate(specs)}
    by_name = {spec.name: spec for spec in specs}
    inputs = [_inputs(index[n], by_name[n], mod_dict[n]) for n in input_order]
    targets = [_targets(index[n], by_name[n], mod_dict[n]) for n in target_order]
    chosen = _first_valid(targets, num_targets)
    # After compaction the published mask lets slot i see the slots before c_i = cumsum(a)_i, where
    # a is T, 0, 0, … over an image of T tokens and 1 on every text token: i sees j iff c_j <= c_i.
    shown: dict[str, Any] = _on_device(_first_valid(inputs, num_inputs))
    chosen["order"] = np.cumsum(chosen["order"], axis=1)
    asked: dict[str, Any] = _on_device(chosen)
    return TokenBatch(
        inputs=InputTokens(**shown),
        targets=TargetTokens(**asked),
        pixels={
            spec.name: jnp.moveaxis(_tensor(mod_dict, spec, _image_shape(spec)), 1, -1)
            for spec in specs
            if spec.kind == "pixels"
        },
        embeddings={
            spec.name: _tensor(mod_dict, spec, (spec.max_tokens, spec.embedding_dim))
            for spec in specs
            if spec.kind == "embedding"
        },
    )


def group(tensors: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """{"<modality>/<field>": array} to {modality: {field: array}}."""
    grouped: dict[str, dict[str, np.ndarray]] = {}
    for key, array in tensors.items():
        name, field = key.rsplit("/", 1)
        grouped.setdefault(name, {})[field] = array
    return grouped


def _image_shape(spec: ModalitySpec) -> tuple[int, int, int]:
    height, width, channels = spec.image_shape
    return channels, height, width


def _on_device(fields: Mapping[str, np.ndarray]) -> dict[str, Array]:
    return {name: jnp.asarray(values) for name, values in fields.items()}


def _tensor(mod_dict: ModDict, spec: ModalitySpec, shape: tuple[int, ...]) -> Array:
    """A modality's tensor, float32; zeros where a batch is without it."""
    if spec.name in mod_dict:
        return jnp.asarray(mod_dict[spec.name]["tensor"], jnp.float32)
    batch = len(next(iter(mod_dict.values()))["input_mask"])
    return jnp.zeros((batch, *shape), jnp.float32)


def _inputs(index: int, spec: ModalitySpec, entry: Mapping) -> dict[str, np.ndarray]:
    valid = ~entry["input_mask"]
    dense = spec.kind in ("sequence", "embedding")
    if spec.is_token:
        ids = entry["tensor"].reshape(valid.shape)
    else:
        ids = _own_index(valid) + 1 if spec.kind == "embedding" else np.zeros(valid.shape)
    return {
        "modality": np.full(valid.shape, index),
        "position": np.asarray(contracts.dense_positions(valid)) if dense else _own_index(valid),
        "id": ids,
        "valid": valid,
    }


def _targets(index: int, spec: ModalitySpec, entry: Mapping) -> dict[str, np.ndarray]:
    valid, attention = ~entry["target_mask"], entry["decoder_attention_mask"]
    ids = entry["tensor"].reshape(valid.shape)
    if spec.kind != "sequence":
        previous, position = np.zeros_like(ids), _own_index(valid)
    else:  # teacher forcing: each slot takes a token and predicts the next one of the same run
        valid = valid[:, 1:] & valid[:, :-1]
        previous, ids, attention = ids[:, :-1], ids[:, 1:], attention[:, :-1]
        position = np.asarray(contracts.dense_positions(valid))
    return {
        "modality": np.full(valid.shape, index),
        "position": position,
        "input_id": previous,
        "id": ids,
        "valid": valid,
        "order": attention,
    }


def _own_index(valid: Bool[np.ndarray, "b l"]) -> Int[np.ndarray, "b l"]:
    return np.broadcast_to(np.arange(valid.shape[1]), valid.shape)


def _first_valid(parts: Sequence[Mapping], num_slots: int) -> dict[str, np.ndarray]:
    """Concatenate, move valid tokens to the front in their order, keep the first slots."""
    whole = {key: np.concatenate([part[key] for part in parts], axis=1) for key in parts[0]}
    order = np.argsort(~whole["valid"], axis=1, kind="stable")[:, :num_slots]
    chosen = {key: np.take_along_axis(array, order, axis=1) for key, array in whole.items()}
    valid = chosen.pop("valid")
    return {key: np.where(valid, array, 0).astype(np.int32) for key, array in chosen.items()} | {
        "valid": valid
    }
