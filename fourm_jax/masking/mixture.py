"""Masking mixtures: how samples of each data set divide their tokens among the modalities."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax
import numpy as np
from jaxtyping import Bool, Float, Int

from fourm_jax.contracts import AnyArray
from fourm_jax.masking import budgets
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.utils import errors

KEEP_SCHEMES = ("random", "all", "binary")
MIXTURE_KEYS = (
    "input_alphas",
    "target_alphas",
    "keep",
    "weights",
    "input_range",
    "target_range",
    "share_leftover",
)
NO_LIMIT = 2**30  # range of a mixture that names none: all slots there are


@flax.struct.dataclass
class Mixture:
    """How samples are masked: per data set a mixture of Dirichlets over modalities.

    Source: docs/published.md#mixtures.

    A pytree, so that other values need no new compilation. `make_mixture` builds it.

    Attributes (d data sets, k components, m modalities; the row of one component lacks d and k):
      input_alphas, target_alphas: concentrations; 0 = gets no share.
      input_extras, target_extras: probability that a token of the rest goes to each modality
        (`budgets.argmax_probabilities` of the alphas).
      keep: index into KEEP_SCHEMES: how a text's keep probability is drawn.
      weights: of the components; 0 for those that fill up the array.
      input_range, target_range: fewest and most tokens of a sample.
      share_leftover: whether slots that no modality with a share can use go to grids without one.
    """

    input_alphas: Float[AnyArray, "*dk m"]
    target_alphas: Float[AnyArray, "*dk m"]
    input_extras: Float[AnyArray, "*dk m"]
    target_extras: Float[AnyArray, "*dk m"]
    keep: Int[AnyArray, "*dk m"]
    weights: Float[AnyArray, "*dk"]
    input_range: Int[AnyArray, "*dk 2"]
    target_range: Int[AnyArray, "*dk 2"]
    share_leftover: Bool[AnyArray, "*dk"]


def make_mixture(specs: Sequence[ModalitySpec], mixtures: Sequence[Mapping[str, Any]]) -> Mixture:
    """Build the Mixture of several data sets from plain dicts (see configs/mixtures.py).

    Each dict has `input_alphas` and `target_alphas` {modality: one value per component, or one
    for all}, and optionally `keep` {modality: scheme or list of schemes} (default "random"),
    `weights` [k] (default equal), `input_range` and `target_range`: (fewest, most) tokens, or one
    such pair per component (default: as many as there are slots). `share_leftover`, one or
    one per component (default True): with budget="fill", what no modality with an alpha > 0 can
    use goes to grids whose alpha is 0; False leaves it empty, for samples that must see nothing
    else.

    Raises:
      ValueError: unknown key, modality or scheme, lists of different lengths, a negative alpha or
        weight, a range whose ends are in the wrong order.
    """
    rows = [_mixture_row(specs, mixture) for mixture in mixtures]
    if not rows:
        raise ValueError("no masking mixture given; need one per data set")
    most = max(len(row["weights"]) for row in rows)

    def pad(value):  # weight 0 for components that only fill up the array
        return np.pad(value, [(0, most - len(value))] + [(0, 0)] * (value.ndim - 1))

    return Mixture(**{k: np.stack([pad(row[k]) for row in rows]) for k in rows[0]})


def _mixture_row(
    specs: Sequence[ModalitySpec], mixture: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    for key in mixture:
        if key not in MIXTURE_KEYS:
            raise ValueError(errors.unknown_value("key of a masking mixture", key, MIXTURE_KEYS))
    tables = {key: dict(mixture.get(key, {})) for key in MIXTURE_KEYS[:3]}
    lists = [v for table in tables.values() for v in table.values() if _is_list(v)]
    lists += [mixture["weights"]] if "weights" in mixture else []
    k = len(lists[0]) if lists else 1
    names = [spec.name for spec in specs]
    arrays = {key: np.zeros((k, len(names)), np.float32) for key in tables}
    for key, table in tables.items():
        for name, value in table.items():
            if name not in names:
                raise ValueError(errors.unknown_value(f"modality in {key}", name, names))
            values = list(value) if _is_list(value) else [value] * k
            if len(values) != k:
                raise ValueError(f"{key} of {name!r}: {len(values)} components, others have {k}")
            arrays[key][:, names.index(name)] = [_number(key, name, v) for v in values]
    weights = np.asarray(mixture.get("weights", np.ones(k)), np.float32)
    if weights.shape != (k,) or weights.min() < 0 or weights.sum() <= 0:
        raise ValueError(f"weights {weights}: need {k} values >= 0 with a positive sum")
    share_leftover = mixture.get("share_leftover", True)
    return {
        "input_alphas": arrays["input_alphas"],
        "target_alphas": arrays["target_alphas"],
        "input_extras": _extras(arrays["input_alphas"]),
        "target_extras": _extras(arrays["target_alphas"]),
        "keep": arrays["keep"].astype(np.int32),
        "weights": weights,
        "input_range": _range("input_range", mixture.get("input_range"), k),
        "target_range": _range("target_range", mixture.get("target_range"), k),
        "share_leftover": _per_component("share_leftover", share_leftover, k, ()).astype(bool),
    }


def _is_list(value: Any) -> bool:
    return not isinstance(value, str) and hasattr(value, "__len__")


def _number(key: str, name: str, value: Any) -> float:
    if key == "keep":
        if value not in KEEP_SCHEMES:
            raise ValueError(f"keep of {name!r}: {value!r}, allowed: {KEEP_SCHEMES}")
        return KEEP_SCHEMES.index(value)
    if value < 0:
        raise ValueError(f"{key} of {name!r}: {value}, must be >= 0")
    return value


def _extras(alphas: Float[np.ndarray, "k m"]) -> Float[np.ndarray, "k m"]:
    return np.stack([budgets.argmax_probabilities(row) for row in alphas]).astype(np.float32)


def _range(key: str, value: Any, k: int) -> Int[np.ndarray, "k 2"]:
    everything = (NO_LIMIT, NO_LIMIT)
    pairs = _per_component(key, everything if value is None else value, k, (2,))
    if (pairs[:, 0] > pairs[:, 1]).any() or (pairs < 0).any():
        raise ValueError(f"{key} {value}: need 0 <= fewest <= most")
    return pairs.astype(np.int32)


def _per_component(key: str, value: Any, k: int, shape: tuple[int, ...]) -> np.ndarray:
    """A value of every component, [k, *shape], of one for all or a list."""
    try:
        return np.broadcast_to(np.array(value), (k, *shape))
    except ValueError:  # of another shape, or ragged
        one = "(fewest, most)" if shape else "value"
        raise ValueError(f"{key} {value}: need one {one}, or one for each of {k}") from None
