"""Conditions as a user gives them -> entries of the batch contract, checked before any step."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fourm_jax.generate import entries as entry_lib
from fourm_jax.generate import fitting, prompts
from fourm_jax.modalities import boxes, coordinates, serializers
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.tokenizers.base import SequenceTokenizer, Tokenizer, Tokenizers
from fourm_jax.tokenizers.missing import missing
from fourm_jax.tokenizers.signal import Signal
from fourm_jax.tokenizers.trained import TrainedTokenizer

Entry = Mapping[str, np.ndarray]


def encode_all(
    conditions: Mapping[str, Any], specs: Mapping[str, ModalitySpec], tokenizers: Tokenizers
) -> dict[str, Entry]:
    """Entries of all conditions; one that is given once counts for every row of the others."""
    entries = {name: encode(specs[name], value, tokenizers) for name, value in conditions.items()}
    sizes = {name: len(next(iter(entry.values()))) for name, entry in entries.items()}
    most = max(sizes.values(), default=1)
    return {
        name: {key: np.repeat(array, most, axis=0) for key, array in entry.items()}
        if sizes[name] == 1 and is_single(specs[name], conditions[name], tokenizers)
        else entry
        for name, entry in entries.items()
    }


def encode(spec: ModalitySpec, value: Any, tokenizers: Tokenizers) -> Entry:
    """Encode the condition of one modality.

    Args:
      spec: of the modality.
      value: one of the following, or of all but the first a list of them, one per row
        - a mapping: taken as an entry of the batch contract (see `state.create`);
        - pixels: a picture, as an array of any size and kind or as the path of a file;
        - embedding: vectors float [l, e];
        - grid, global: token ids, integers [num_tokens]; or the raw signal for its tokenizer, as an
          array of any size or the path of a picture or .npy file;
        - sequence: a text, a list of ids or a raw record field: boxes as {"boxes", "classes"} or
          [{"box", "label"}, ...], a palette [n, 3], metadata {field: number}, ... A text is
          complete and gets an [EOS], unless it has holes: "a ___ cone" asks for more there.
      tokenizers: by the name that `spec.tokenizer` holds.

    Raises:
      ValueError: a tokenizer is missing, a value that means nothing here, or an id outside the
        vocabulary.
    """
    if isinstance(value, Mapping) and value and set(value) <= entry_lib.EVERY:
        entry = {name: np.asarray(array) for name, array in value.items()}
        entry_lib.check(spec, entry)
        return entry
    rows = [value] if is_single(spec, value, tokenizers) else value
    return encode_rows(spec, rows, tokenizers)


def is_single(spec: ModalitySpec, value: Any, tokenizers: Tokenizers) -> bool:
    """Whether a value is that of one row, and no list of rows."""
    if isinstance(value, str | os.PathLike):
        return True
    if isinstance(value, Mapping):
        return not (value and set(value) <= entry_lib.EVERY)
    if spec.kind == "sequence":
        return _is_one_text_value(spec, value)
    if _is_list_of_files(value):
        return False
    ndim = _ndim(value)
    if spec.kind == "pixels":
        return ndim in (2, 3)
    if spec.kind == "embedding":
        return ndim == 2
    if is_ids(spec, value):
        return ndim == 1
    signal = _signal(spec, tokenizers)
    return signal is not None and ndim == len(signal.axes)


def _ndim(value: Any) -> int:
    """Axes of nested lists of arrays, whose sizes may differ."""
    if isinstance(value, list | tuple) and value:
        return 1 + _ndim(value[0])
    return np.ndim(value)


def _is_one_text_value(spec: ModalitySpec, value: Any) -> bool:
    if not isinstance(value, Sequence | np.ndarray):
        return True  # typed, such as Boxes
    if isinstance(value, np.ndarray):
        return value.ndim == (1 if spec.text_form == serializers.PLAIN else 2)
    if value and all(isinstance(one, Mapping) and "box" in one for one in value):
        return True
    is_numbers = fitting.is_array(value) and len(value) > 0
    return is_numbers and np.ndim(value) == (2 if spec.text_form == "palette" else 1)


def _is_list_of_files(value: Any) -> bool:
    return isinstance(value, list | tuple) and any(isinstance(v, str | os.PathLike) for v in value)


def is_ids(spec: ModalitySpec, values: Any) -> bool:
    """Whether numbers are ids of a grid or vector, of one row or several."""
    if _is_list_of_files(values) or not fitting.is_array(values):
        return False
    value = np.asarray(values)
    return value.dtype.kind in "iu" and value.ndim in (1, 2) and value.shape[-1] == spec.num_tokens


def encode_rows(spec: ModalitySpec, rows: Any, tokenizers: Tokenizers) -> Entry:
    """Encode one value per row, see `encode`."""
    if len(rows) == 0:
        raise ValueError(f"modality {spec.name!r}: no rows, allowed: at least one")
    if spec.kind == "embedding":
        return _embedding(spec, rows)
    if spec.kind == "pixels":
        size, signal = spec.image_shape[:2], fitting.of_pixels(spec)
        return {"pixels": np.stack([_fitted(row, spec, signal, size) for row in rows])}
    if spec.kind == "sequence":
        entry = _sequence(spec, rows, tokenizers)
    else:
        entry = {"ids": _grid(spec, rows, tokenizers)}
    entry_lib.check_ids(spec, entry["ids"])
    return entry


def _embedding(spec: ModalitySpec, rows: Any) -> Entry:
    vectors = np.asarray(rows)
    if vectors.dtype.kind != "f" or vectors.ndim != 3 or vectors.shape[2] != spec.embedding_dim:
        raise ValueError(
            f"modality {spec.name!r}: vectors {vectors.dtype} {list(vectors.shape)}, allowed: "
            f"float [rows, vectors, {spec.embedding_dim}]"
        )
    if vectors.shape[1] > spec.max_tokens:
        raise ValueError(
            f"modality {spec.name!r}: {vectors.shape[1]} vectors, allowed: {spec.max_tokens}"
        )
    entry = {"embeddings": vectors, "length": np.full(len(vectors), vectors.shape[1])}
    entry_lib.check(spec, entry)
    return entry


def _fitted(row: Any, spec: ModalitySpec, signal: Signal, size: tuple[int, int]) -> np.ndarray:
    if isinstance(row, str | os.PathLike):
        row = fitting.read_picture(row, spec, signal)
    return fitting.fit(np.asarray(row), spec, signal, size)


def _signal(spec: ModalitySpec, tokenizers: Tokenizers) -> Signal | None:
    tokenizer = tokenizers.get(spec.tokenizer)
    return tokenizer.signal if isinstance(tokenizer, Tokenizer) else None


def _grid(spec: ModalitySpec, rows: Any, tokenizers: Tokenizers) -> np.ndarray:
    if is_ids(spec, rows):
        return np.asarray(rows)
    tokenizer = tokenizers.get(spec.tokenizer)
    if not isinstance(tokenizer, Tokenizer):
        got = "files" if _is_list_of_files(rows) else f"values {np.shape(rows[0])}"
        raise ValueError(
            f"modality {spec.name!r}: {got} are no ids (integers ({spec.num_tokens},)) and "
            f"{missing(spec, tokenizers)}"
        )
    if isinstance(tokenizer, TrainedTokenizer):
        patch = tokenizer.module.patch_size
        size = (spec.grid[0] * patch, spec.grid[1] * patch)
        rows = [_fitted(row, spec, tokenizer.signal, size) for row in rows]
    ids = tokenizer.encode(np.stack([np.asarray(row) for row in rows])).reshape(len(rows), -1)
    if ids.shape[1] != spec.num_tokens:
        raise ValueError(
            f"modality {spec.name!r}: tokenizer {spec.tokenizer!r} makes {ids.shape[1]} tokens of "
            f"{np.shape(rows[0])}, the model has {spec.num_tokens}"
        )
    return ids


def _sequence(spec: ModalitySpec, values: Sequence[Any], tokenizers: Tokenizers) -> Entry:
    rows = [_sequence_row(spec, value, tokenizers) for value in values]
    text = tokenizers.get(spec.tokenizer)
    if isinstance(text, SequenceTokenizer):
        prompts.warn_of_strange_words(spec.name, _written(spec, values), text)
    # Widths in steps of 8: prompts of similar length share one compiled program.
    width = max(8 * -(-max(map(len, rows), default=1) // 8), 1)
    ids = np.zeros((len(rows), width), np.int32)
    for row, filled in zip(ids, rows, strict=True):
        row[: len(filled)] = filled
    return {"ids": ids, "length": np.array([len(row) for row in rows], np.int32)}


def _written(spec: ModalitySpec, values: Sequence[Any]) -> Iterable[str]:
    """What people wrote: texts, and names of boxes."""
    for value in values:
        if isinstance(value, str):
            yield prompts.HOLE.sub(" ", value)
        elif spec.text_form == "boxes" and not _is_id_list(value):
            yield " ".join(boxes.from_record(_typed(spec, value)).classes)


def _is_id_list(value: Any) -> bool:
    return fitting.is_array(value) and np.asarray(value).dtype.kind in "iu" and np.ndim(value) == 1


def _sequence_row(spec: ModalitySpec, value: Any, tokenizers: Tokenizers) -> np.ndarray:
    if not isinstance(value, str) and _is_id_list(value):
        ids = np.asarray(value)
        _check_length(spec, len(ids))
        return ids
    text = tokenizers.get(spec.tokenizer)
    if not isinstance(text, SequenceTokenizer):
        raise ValueError(
            f"modality {spec.name!r}: the condition is a text and {missing(spec, tokenizers)}"
        )
    if not isinstance(value, str):
        try:
            value = serializers.get(spec.text_form).serialize(
                _typed(spec, value), np.random.default_rng(0)
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"modality {spec.name!r}: {error}") from error
    if isinstance(value, str):
        ids = text.encode(prompts.fill_holes(value))
        first = text.vocabulary.first_sentinel_id
        is_sentinel = (ids >= first) & (ids < first + text.vocabulary.num_sentinels)
        if is_sentinel.any():
            if prompts.HOLE.search(value) and not is_sentinel[-1]:  # what follows is complete
                ids = np.append(ids, np.int32(text.vocabulary.eos_id))
            _check_length(spec, len(ids))
            return ids
        _check_length(spec, len(ids) + 1)
    return text.encode_sequence(value, max_tokens=spec.max_tokens, chunked=spec.chunked)[0]


def _typed(spec: ModalitySpec, value: Any) -> Any:
    """Boxes of [{"box", "label"}, ...]; everything else as it is."""
    if spec.text_form != "boxes" or not isinstance(value, list | tuple):
        return value
    for one in value:
        if not isinstance(one, Mapping) or set(one) != {"box", "label"}:
            raise ValueError(
                f"modality {spec.name!r}: {one!r}, allowed: "
                '{"box": [xmin, ymin, xmax, ymax] as shares 0..1, "label": NAME}'
            )
    corners = [one["box"] for one in value]
    if not fitting.is_array(corners) or (corners and np.shape(corners) != (len(corners), 4)):
        raise ValueError(f"modality {spec.name!r}: boxes {corners}, allowed: four numbers each")
    labels = tuple(str(one["label"]) for one in value)
    found = np.asarray(corners, float).reshape(-1, 4)
    for row in np.flatnonzero(~coordinates.has_extent(found)):  # those of records are left out
        raise ValueError(
            f"modality {spec.name!r}: box {row} is {corners[row]}, expected xmin < xmax and "
            "ymin < ymax"
        )
    return {"boxes": found, "classes": labels}


def _check_length(spec: ModalitySpec, length: int) -> None:
    if length > spec.max_tokens:
        raise ValueError(
            f"modality {spec.name!r}: {length} tokens, allowed: {spec.max_tokens} with the end"
        )
