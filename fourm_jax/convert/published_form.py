"""A trunk trained from scratch in the form of a published one: same numbers out, other tables.

Our corrected models scale tokens when they are looked up and may share tables between modalities;
published ones do neither. Both can be written into the tables. What cannot is an error.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fourm_jax.modalities import registry
from fourm_jax.models import tables
from fourm_jax.models.fourm import FourM, initial_scales

COMPARED = (
    "kind",
    "vocab_size",
    "grid",
    "patch_size",
    "num_channels",
    "embedding_dim",
    "codes_per_position",
)


def of(model: FourM, params: Mapping[str, Any]) -> tuple[FourM, dict[str, Any]]:
    """Return (model with as_published=True, parameters) that compute what `model` does.

    Raises:
      ValueError: names what the published format does not have: a modality or its size, learned
        positions, a grid that is not square, a text longer than its position table.
    """
    _check(model)
    scale = np.float32(initial_scales(model.dim, model.as_published)["token_scale"])
    separate = tuple(spec.replace(table=spec.name) for spec in model.modalities)
    published = model.clone(modalities=separate, as_published=True, tie_heads=False)
    params = dict(params)
    for side, used in (("encoder", model.inputs), ("decoder", model.outputs)):
        name = f"{side}_embedding"
        embedding = dict(params[name])
        ours = tables.token_layout(model.modalities, used)
        theirs = tables.token_layout(separate, used)
        if side == "decoder":
            heads = embedding["tokens" if model.tie_heads else "heads"]
            embedding["heads"] = _spread(np.asarray(heads), ours, theirs)
        if theirs.num_rows:
            embedding["tokens"] = _spread(np.asarray(embedding["tokens"]) * scale, ours, theirs)
        params[name] = embedding
    return published, params


def _spread(table: np.ndarray, ours: tables.Layout, theirs: tables.Layout) -> np.ndarray:
    """Rows of every modality in a table where none are shared."""
    rows = np.empty((theirs.num_rows, table.shape[1]), table.dtype)
    for source, goal, size in zip(ours.offsets, theirs.offsets, theirs.sizes, strict=True):
        rows[goal : goal + size] = table[source : source + size]
    return rows


def _check(model: FourM) -> None:
    known = {spec.name: spec for spec in registry.FOURM}
    if model.positions != "sincos":
        raise ValueError(f"the published format has no positions={model.positions!r}, only sincos")
    for spec in model.modalities:
        if spec.name not in known:
            raise ValueError(
                f"the published format has no modality {spec.name!r}, only {sorted(known)}"
            )
        for field in COMPARED:
            found, expected = getattr(spec, field), getattr(known[spec.name], field)
            if found != expected:
                raise ValueError(
                    f"modality {spec.name!r} has {field} {found}, in the published format it is "
                    f"{expected}"
                )
        longest = known[spec.name].max_tokens  # shorter texts are the same model, fed with less
        if spec.max_tokens > longest or (
            spec.kind in ("grid", "global") and spec.max_tokens != longest
        ):
            raise ValueError(
                f"modality {spec.name!r} has max_tokens {spec.max_tokens}, in the published format "
                f"it is {longest}"
            )
        if spec.kind in ("pixels", "grid") and spec.grid[0] != spec.grid[1]:
            raise ValueError(f"modality {spec.name!r}: published positions need a square grid")
        if spec.kind == "sequence" and spec.max_positions < spec.max_tokens:
            raise ValueError(
                f"modality {spec.name!r}: {spec.max_positions} positions for {spec.max_tokens} "
                "tokens; beyond its table the published format starts again at 0, this model does "
                f"not (train with max_tokens {spec.max_positions})"
            )
