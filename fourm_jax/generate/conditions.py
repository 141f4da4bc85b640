"""Conditions as a user gives them -> entries of the batch contract, checked before any step."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fourm_jax.modalities import serializers
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.tokenizers.base import SequenceTokenizer, Tokenizer, Tokenizers
from fourm_jax.tokenizers.missing import missing

Entry = Mapping[str, np.ndarray]


def encode(spec: ModalitySpec, value: Any, tokenizers: Tokenizers) -> Entry:
    """Encode the condition of one modality.

    Args:
      spec: of the modality.
      value: one of
        - a mapping: taken as an entry of the batch contract (see `state.create`);
        - pixels: images uint8 [b, h, w, c]; embedding: vectors float [b, l, e];
        - grid, global: token ids, integers [b, num_tokens], or the raw signal for its tokenizer;
        - sequence: a list with one text, list of ids or raw record field (boxes, palette, ...) per
          row. A text without sentinel is complete and gets an [EOS]; "a red [S_1]" asks for more
          where the sentinel stands.
      tokenizers: by the name that `spec.tokenizer` holds.

    Raises:
      ValueError: a tokenizer is missing, the shape is wrong, or an id outside the vocabulary.
    """
    entry: Entry
    if isinstance(value, Mapping):
        entry = {name: np.asarray(array) for name, array in value.items()}
    elif spec.kind == "pixels":
        entry = {"pixels": _check_pixels(spec, np.asarray(value))}
    elif spec.kind == "embedding":
        vectors = np.asarray(value)
        entry = {"embeddings": vectors, "length": np.full(len(vectors), vectors.shape[1])}
    elif spec.kind == "sequence":
        entry = _sequence(spec, value, tokenizers)
    else:
        entry = {"ids": _grid(spec, np.asarray(value), tokenizers)}
    if "ids" in entry:
        check_ids(spec, entry["ids"])
    return entry


def check_ids(spec: ModalitySpec, ids: np.ndarray) -> None:
    """Raise ValueError for ids outside the vocabulary of `spec`."""
    if ids.dtype.kind not in "iu":
        raise ValueError(f"modality {spec.name!r}: ids of type {ids.dtype}, allowed: integers")
    wrong = ids[(ids < 0) | (ids >= spec.vocab_size)]
    if wrong.size:
        raise ValueError(
            f"modality {spec.name!r}: id {wrong[0]}, allowed: 0..{spec.vocab_size - 1}"
        )


def _check_pixels(spec: ModalitySpec, pixels: np.ndarray) -> np.ndarray:
    if pixels.shape[1:] != spec.image_shape:
        raise ValueError(
            f"modality {spec.name!r}: images {pixels.shape[1:]}, allowed: {spec.image_shape}"
        )
    return pixels


def _grid(spec: ModalitySpec, value: np.ndarray, tokenizers: Tokenizers) -> np.ndarray:
    if value.dtype.kind in "iu" and value.shape[1:] == (spec.num_tokens,):
        return value
    tokenizer = tokenizers.get(spec.tokenizer)
    if not isinstance(tokenizer, Tokenizer):
        raise ValueError(
            f"modality {spec.name!r}: values {value.dtype} {value.shape[1:]} are no ids "
            f"(integers ({spec.num_tokens},)) and {missing(spec, tokenizers)}"
        )
    ids = tokenizer.encode(value).reshape(len(value), -1)
    if ids.shape[1] != spec.num_tokens:
        raise ValueError(
            f"modality {spec.name!r}: tokenizer {spec.tokenizer!r} makes {ids.shape[1]} tokens of "
            f"{value.shape[1:]}, the model has {spec.num_tokens}"
        )
    return ids


def _sequence(spec: ModalitySpec, values: Sequence[Any], tokenizers: Tokenizers) -> Entry:
    if isinstance(values, str):
        raise ValueError(f"modality {spec.name!r}: one text, allowed: a list with one per row")
    rows = [_sequence_row(spec, value, tokenizers) for value in values]
    # Widths in steps of 8: prompts of similar length share one compiled program.
    width = max(8 * -(-max(map(len, rows), default=1) // 8), 1)
    ids = np.zeros((len(rows), width), np.int32)
    for row, filled in zip(ids, rows, strict=True):
        row[: len(filled)] = filled
    return {"ids": ids, "length": np.array([len(row) for row in rows], np.int32)}


def _sequence_row(spec: ModalitySpec, value: Any, tokenizers: Tokenizers) -> np.ndarray:
    if not isinstance(value, str) and np.asarray(value).dtype.kind in "iu" and np.ndim(value) == 1:
        return np.asarray(value)
    text = tokenizers.get(spec.tokenizer)
    if not isinstance(text, SequenceTokenizer):
        raise ValueError(
            f"modality {spec.name!r}: the condition is a text and {missing(spec, tokenizers)}"
        )
    if not isinstance(value, str):
        value = serializers.get(spec.text_form).serialize(value)
    if isinstance(value, str):
        ids = text.encode(value)
        first = text.vocabulary.first_sentinel_id
        if ((ids >= first) & (ids < first + text.vocabulary.num_sentinels)).any():
            return ids[: spec.max_tokens]
    return text.encode_sequence(value, max_tokens=spec.max_tokens, chunked=spec.chunked)[0]
