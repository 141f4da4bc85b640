"""Entries of the batch contract that a user gives as conditions, checked before they are used."""

import math
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from fourm_jax.modalities.spec import ModalitySpec

CONTENT = {"pixels": "pixels", "embedding": "embeddings"}  # by kind; of all others "ids"
KEYS = {
    "pixels": ("pixels", "present", "known"),
    "embedding": ("embeddings", "length", "known"),
    "sequence": ("ids", "length", "chunk", "known"),
    "grid": ("ids", "present", "known"),
    "global": ("ids", "present", "known"),
}
EVERY = frozenset(key for keys in KEYS.values() for key in keys)


def check(spec: ModalitySpec, entry: Mapping[str, np.ndarray]) -> None:
    """Refuse an entry that does not fit its modality: its arrays would be read as something else.

    Raises:
      ValueError: names the modality and the array, and says what is allowed.
    """
    content, allowed = CONTENT.get(spec.kind, "ids"), KEYS[spec.kind]
    if content not in entry or not set(entry) <= set(allowed):
        raise ValueError(
            f"modality {spec.name!r}: an entry of {sorted(entry)}, allowed: {content!r} and any of "
            f"{[key for key in allowed if key != content]}"
        )
    array = entry[content]
    if not len(array):
        raise ValueError(f"modality {spec.name!r}: no rows, allowed: at least one")
    _check_content(spec, content, array)
    num_rows = len(array)
    width = spec.num_tokens if content == "pixels" else math.prod(array.shape[1:])
    if content == "embeddings":
        width = array.shape[1]
    for key, size in (("present", num_rows), ("length", num_rows), ("known", num_rows * width)):
        if key in entry and (len(entry[key]) != num_rows or entry[key].size != size):
            raise _wrong(spec, key, entry[key], f"{size // num_rows} for each of {num_rows} rows")
    if "length" in entry:
        lengths = entry["length"]
        most = min(width, spec.max_tokens)
        if lengths.dtype.kind not in "iu" or lengths.min() < 0 or lengths.max() > most:
            raise ValueError(
                f"modality {spec.name!r}: length {lengths.tolist()}, allowed: whole numbers "
                f"0..{most}"
            )


def check_ids(spec: ModalitySpec, ids: np.ndarray) -> None:
    """Raise ValueError for ids outside the vocabulary of `spec`."""
    if ids.dtype.kind not in "iu":
        raise ValueError(f"modality {spec.name!r}: ids of type {ids.dtype}, allowed: integers")
    wrong = ids[(ids < 0) | (ids >= spec.vocab_size)]
    if wrong.size:
        raise ValueError(
            f"modality {spec.name!r}: id {wrong[0]}, allowed: 0..{spec.vocab_size - 1}"
        )


def _check_content(spec: ModalitySpec, content: str, array: np.ndarray) -> None:
    if content == "ids":
        check_ids(spec, array)
        if spec.kind == "sequence":
            if array.ndim != 2:
                raise _wrong(spec, content, array, "[rows, tokens]")
        elif math.prod(array.shape[1:]) != spec.num_tokens:
            raise _wrong(spec, content, array, f"{spec.num_tokens} in each row")
    elif content == "pixels":
        if array.dtype != np.uint8 or array.shape[1:] != spec.image_shape:
            raise _wrong(spec, content, array, f"uint8 [rows, {str([*spec.image_shape])[1:]}")
    else:
        fits = array.ndim == 3 and 0 < array.shape[1] <= spec.max_tokens
        if not fits or array.shape[2] != spec.embedding_dim or not _is_float(array):
            sizes = f"up to {spec.max_tokens}, {spec.embedding_dim}"
            raise _wrong(spec, content, array, f"float [rows, {sizes}]")
        if not np.isfinite(array).all():
            raise ValueError(f"modality {spec.name!r}: vectors with NaN or infinity")


def _is_float(array: np.ndarray) -> bool:
    return bool(jnp.issubdtype(array.dtype, jnp.floating))  # bfloat16 too


def _wrong(spec: ModalitySpec, key: str, array: np.ndarray, allowed: str) -> ValueError:
    return ValueError(
        f"modality {spec.name!r}: {key} {array.dtype} {list(array.shape)}, allowed: {allowed}"
    )
