"""What another training starts from: parameters by the names of their parts, wherever they lie."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from fourm_jax.contracts import AnyArray
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.models import parts
from fourm_jax.models.fourm import FourM
from fourm_jax.utils import tree

# Fields of a trunk that change what it computes and that no shape of a parameter tells.
FUNCTION_FIELDS = ("num_heads", "mlp", "as_published", "separate_targets", "causal_targets")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
    """Parameters of a model.

    Attributes:
      parts: by name, see `parts.split`; variables that are no parameters (a codebook) begin with
        the name of their collection.
      specs: modalities of a trunk, by name.
      function: the `FUNCTION_FIELDS` of a trunk.
    """

    parts: Mapping[str, AnyArray]
    specs: Mapping[str, ModalitySpec] = dataclasses.field(default_factory=dict)
    function: Mapping[str, Any] = dataclasses.field(default_factory=dict)


Read = Callable[[str], Weights]  # a run folder, a folder or a Hub id -> what lies there


def of_trunk(model: FourM, params: Mapping[str, Any]) -> Weights:
    """The weights of a trunk."""
    return Weights(
        parts=parts.split(params, parts.packed_tables(model)),
        specs={spec.name: spec for spec in model.modalities},
        function=function_of(model),
    )


def of_variables(variables: Mapping[str, Any]) -> Weights:
    """The weights of a tokenizer: "params", and what else there is."""
    others = {name: value for name, value in variables.items() if name != "params"}
    return Weights(parts=tree.named_leaves(variables["params"]) | tree.named_leaves(others))


def function_of(model: FourM) -> dict[str, Any]:
    """The `FUNCTION_FIELDS` of a trunk."""
    return {name: getattr(model, name) for name in FUNCTION_FIELDS}


def fingerprint(params: Mapping[str, Any]) -> str:
    """16 hexadecimal digits that other weights do not have: of some values of every parameter.

    These are one of each layer or row, as a training may change a few rows of a packed table alone
    (those of an added modality), and 64 of the first. They are compared as bfloat16, so that a copy
    that computes in it has the same.
    """
    digest = hashlib.sha256()
    for name, leaf in tree.named_leaves(params).items():
        digest.update(f"{name} {leaf.shape}".encode())
        first = (0,) * (leaf.ndim - 1)
        some = (leaf[(slice(None), *first)], leaf[(*first, slice(64))]) if leaf.ndim else (leaf,)
        for values in some:
            digest.update(np.asarray(jnp.asarray(values, jnp.bfloat16)).tobytes())
    return digest.hexdigest()[:16]
