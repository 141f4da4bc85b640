"""What the trunk makes of its inputs, as vectors: of encoder or decoder, or predicted ones.

| kind              | vectors                                                                   |
|-------------------|---------------------------------------------------------------------------|
| `encoder`         | encoder output of every visible token (registers left out)                |
| `decoder:NAME`    | decoder features of every position of a grid or global target             |
| `global:NAME`     | the vector that a global modality predicts, decoded by its tokenizer      |

"global" alone is the only global modality that the model predicts.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from fourm_jax import contracts
from fourm_jax.generate import buckets
from fourm_jax.generate import state as states
from fourm_jax.generate.state import State, Widths
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.models import transformer
from fourm_jax.models.fourm import FourM
from fourm_jax.utils.errors import unknown_value

KINDS = ("encoder", "decoder", "global")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Features:
    """Vectors of the tokens of n rows.

    Attributes:
      vectors: [n, l, d] float32; those that are not valid mean nothing.
      valid: [n, l] which tokens there are.
    """

    vectors: Float[np.ndarray, "n l d"]
    valid: Bool[np.ndarray, "n l"]

    def pooled(self) -> Float[np.ndarray, "n d"]:
        """Mean over the tokens of each row; zeros for a row without any."""
        weights = self.valid[..., None].astype(np.float32)
        return (self.vectors * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1)


def parse(kind: str, model: FourM) -> tuple[str, ModalitySpec | None]:
    """Split "decoder:tok_depth" into its kind and the spec of its target.

    Raises:
      ValueError: an unknown kind, or a target that the kind cannot have.
    """
    head, _, name = kind.partition(":")
    if head not in KINDS:
        raise ValueError(unknown_value("features", head, KINDS))
    if head == "encoder":
        if name:
            raise ValueError(f"features {kind!r}: the encoder has no target")
        return head, None
    kinds = ("global",) if head == "global" else ("grid", "global")
    specs = {spec.name: spec for spec in model.modalities if spec.kind in kinds}
    allowed = [one for one in specs if one in model.outputs]
    if head == "global" and not name and len(allowed) == 1:
        name = allowed[0]
    if name not in allowed:
        raise ValueError(unknown_value(f"target of features {head!r}", name, allowed))
    return head, specs[name]


def compute(
    model: FourM, params: Any, state: State, *, target: str = "", depth: int = 0
) -> Features:
    """Features of the rows of a state: of the encoder, or of the decoder at a `target`.

    Args:
      depth: blocks of the encoder that are run, before its final norm; 0: all.

    Raises:
      ValueError: a depth that the encoder does not have.
    """
    check_depth(model, depth)
    if depth:
        model, params = _shortened(model, params, depth)
    widths = buckets.input_widths(state, buckets.known_range(state), written={}, hidden={})
    vectors, valid = jax.device_get(_compute(model, params, state, target, widths))
    return Features(vectors=vectors.astype(np.float32), valid=valid)


def check_depth(model: FourM, depth: int, head: str = "encoder") -> None:
    """Refuses a number of blocks that the encoder does not have; 0 stands for all, which what is
    predicted ("global") needs."""
    if head == "global" and depth:
        raise ValueError(f"depth {depth} of features 'global', allowed: 0, all blocks predict them")
    if not 0 <= depth <= model.encoder_depth:
        raise ValueError(f"depth {depth}, allowed: 1..{model.encoder_depth}, or 0 for all")


def _shortened(model: FourM, params: Mapping[str, Any], depth: int) -> tuple[FourM, Any]:
    """The model of the first blocks of the encoder."""
    encoder = transformer.first_layers(params["encoder"], depth)
    return model.clone(encoder_depth=depth), {**params, "encoder": encoder}


@functools.partial(jax.jit, static_argnames=("model", "target", "widths"))
def _compute(
    model: FourM, params: Any, state: State, target: str, widths: Widths
) -> tuple[Float[Array, "b l d"], Bool[Array, "b l"]]:
    specs, num_rows = model.modalities, state.batch_size

    def run(module: FourM) -> tuple[Array, Array]:
        nothing = contracts.empty_targets(num_rows)
        tokens = states.token_batch([state], [nothing], specs, widths)
        encoded, valid = module.encode(tokens), tokens.inputs.valid
        if not target:
            first = model.num_registers
            return encoded.hidden[:, first : first + valid.shape[1]], valid
        size = specs[states.index_of(specs, target)].num_tokens
        positions = jnp.broadcast_to(jnp.arange(size), (num_rows, size))
        asked = states.parallel_targets(states.index_of(specs, target), positions, positions >= 0)
        return module.decode(encoded, asked), positions >= 0

    result: Any = model.apply({"params": params}, method=run)
    return result


def joined(parts: list[Features], num_rows: int) -> Features:
    """The first rows of several blocks, whose widths may differ."""
    width = max(part.valid.shape[1] for part in parts)

    def padded(array: np.ndarray) -> np.ndarray:
        missing = width - array.shape[1]
        return np.pad(array, [(0, 0), (0, missing)] + [(0, 0)] * (array.ndim - 2))

    return Features(
        vectors=np.concatenate([padded(part.vectors) for part in parts])[:num_rows],
        valid=np.concatenate([padded(part.valid) for part in parts])[:num_rows],
    )
