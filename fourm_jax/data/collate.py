"""Records of one batch -> padded arrays per modality: the Batch contract.

Source: docs/architecture.md#contracts.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
from jaxtyping import Bool, Int, Integer, Shaped, UInt8

from fourm_jax.contracts import Batch
from fourm_jax.data import blocks
from fourm_jax.data.crops import settings, stored
from fourm_jax.data.storage.left_out import RecordError
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.utils import picture_files

CHUNK_SUFFIX = stored.CHUNK_SUFFIX


def collate(
    rows: Sequence[Mapping[str, Any]],
    fields: Sequence[Mapping[str, str]],
    mixtures: Sequence[int],
    specs: Sequence[ModalitySpec],
    draws: Sequence[float] | None = None,
) -> Batch:
    """Pad and stack the records of one batch.

    Args:
      rows: records; those with several crops (see `crops`) show one of them.
      fields: {modality: record field} of each row; a modality that is not listed, or whose field a
        record lacks, is absent (zeros with present False or length 0).
      mixtures: masking mixture of each row.
      specs: modalities of the run; fields of other modalities are never looked at.
      draws: number in [0, 1) per row that chooses its crop, the same for all modalities; None: the
        first crops.

    Returns:
      {modality: {"ids" uint16 or int32, "present" | "length", "chunk" | "pixels" uint8 |
      "embeddings" bfloat16}, "mixture": int32 [b]}.

    Raises:
      RecordError: wrong size, rank or dtype, an id outside the vocabulary, an unreadable picture,
        crops that do not fit together; names the row.
    """
    batch: Batch = {"mixture": np.asarray(mixtures, np.int32)}
    crops = [
        _choose(row, record, draws[row] if draws is not None else 0.0)
        for row, record in enumerate(rows)
    ]
    for spec in specs:
        values, chunks = _values(spec, rows, fields, crops)
        entry: Any = _COLLATE[spec.kind](spec, values)
        if spec.kind == "sequence" and spec.chunked:
            names = [row_fields.get(spec.name, "") for row_fields in fields]
            entry["chunk"] = _chunks(spec, names, values, chunks, entry["length"])
        batch[spec.name] = entry
    return batch


def _choose(row: int, record: Mapping[str, Any], draw: float) -> settings.Crop | None:
    try:
        return settings.choose(record, draw)
    except ValueError as error:
        raise RecordError("bad_crops", str(error), row) from error


def _values(
    spec: ModalitySpec,
    rows: Sequence[Mapping[str, Any]],
    fields: Sequence[Mapping[str, str]],
    crops: Sequence[settings.Crop | None],
) -> tuple[list, list]:
    """What each row holds of one modality, and the chunks of it; None where there is nothing."""
    values, chunks = [], []
    for row, (record, row_fields) in enumerate(zip(rows, fields, strict=True)):
        name = row_fields.get(spec.name, "")
        value, chunk, crop = record.get(name), None, crops[row]
        if value is not None:
            if not isinstance(value, np.ndarray):
                kind = type(value).__name__
                message = f"{spec.name!r} is a {kind}, expected an array (tokenized?)"
                raise RecordError("wrong_type", message, row)
            if spec.chunked:
                chunk = record.get(name + CHUNK_SUFFIX)
            if crop is not None:
                try:
                    value, chunk = stored.select(spec, record, name, crop)
                except ValueError as error:
                    raise RecordError("bad_crops", f"{spec.name!r}: {error}", row) from error
        values.append(value)
        chunks.append(chunk)
    return values, chunks


def id_dtype(vocab_size: int) -> np.dtype:
    """Narrowest dtype in which ids of a vocabulary travel; device code casts to int32."""
    return np.dtype(np.uint16 if vocab_size <= 2**16 else np.int32)


def _collate_grid(spec: ModalitySpec, values: Sequence) -> dict[str, np.ndarray]:
    codes = (spec.codes_per_position,) if spec.codes_per_position > 1 else ()
    ids = np.zeros((len(values), spec.max_tokens, *codes), id_dtype(spec.vocab_size))
    present = np.zeros(len(values), bool)
    for row, value in enumerate(values):
        if value is None:
            continue
        if value.size != spec.num_tokens:
            message = f"{spec.name!r} has shape {value.shape}, expected {ids.shape[1:]} ids"
            raise RecordError("wrong_token_count", message, row)
        _check_ids(spec, row, value)
        ids[row] = value if value.shape == ids.shape[1:] else value.reshape(ids.shape[1:])
        present[row] = True
    _check_vocabulary(spec, ids)
    return {"ids": ids, "present": present}


def _collate_sequence(spec: ModalitySpec, values: Sequence) -> dict[str, np.ndarray]:
    longest = spec.max_tokens
    ids = np.zeros((len(values), longest), id_dtype(spec.vocab_size))
    length = np.zeros(len(values), np.int32)
    for row, value in enumerate(values):
        if value is None:
            continue
        if value.ndim != 1:
            message = f"{spec.name!r} has shape {value.shape}, expected a list of ids"
            raise RecordError("wrong_shape", message, row)
        _check_ids(spec, row, value)
        count = min(len(value), longest)  # a cut may lose [EOS], as in the published system
        ids[row, :count] = value[:count]
        length[row] = count
    _check_vocabulary(spec, ids)
    chunk = np.broadcast_to(np.arange(longest, dtype=np.int32), ids.shape)
    return {"ids": ids, "length": length, "chunk": chunk}


def _chunks(
    spec: ModalitySpec,
    names: Sequence[str],
    values: Sequence,
    chunks: Sequence,
    length: np.ndarray,
) -> Int[np.ndarray, "b l"]:
    """Chunk of each token; cuts `length` to whole chunks. Padding is its own chunk."""
    chunk = np.tile(np.arange(spec.max_tokens, dtype=np.int32), (len(values), 1))
    for row, value in enumerate(chunks):
        if not length[row]:
            continue
        stored = len(values[row])
        if value is None or value.shape != (stored,):
            found = "nothing" if value is None else f"shape {value.shape}"
            raise RecordError(
                "wrong_shape",
                f"chunked {spec.name!r} has {stored} ids and needs a field "
                f"{names[row] + CHUNK_SUFFIX!r} of shape ({stored},), found {found}",
                row,
            )
        if not _counts_up(value):
            message = f"{names[row] + CHUNK_SUFFIX!r} is {value.tolist()}, expected 0, 0, 1, …"
            raise RecordError("bad_chunks", message, row)
        count = int(length[row])
        if count < stored:  # whole trailing chunks go (docs/published.md#masking, sequences)
            count = int(np.searchsorted(value, value[count]))
            length[row] = count
        chunk[row, :count] = value[:count]
    return chunk


def _counts_up(chunk: Shaped[np.ndarray, "l"]) -> bool:
    """Whether chunks are numbers from 0 on in their order, none larger than its token's number."""
    return bool(
        chunk.dtype.kind in "iu"
        and (chunk >= 0).all()
        and (chunk <= np.arange(len(chunk))).all()
        and (chunk[1:] >= chunk[:-1]).all()
    )


def _collate_pixels(spec: ModalitySpec, values: Sequence) -> dict[str, np.ndarray]:
    shape = spec.image_shape
    pixels = np.zeros((len(values), *shape), np.uint8)
    present = np.zeros(len(values), bool)
    for row, value in enumerate(values):
        if value is None:
            continue
        if isinstance(value, stored.UncroppedPicture):
            value = _crop_picture(spec, row, value, shape)
        if value.dtype != np.uint8:
            message = f"{spec.name!r} has dtype {value.dtype}, expected uint8"
            raise RecordError("wrong_type", message, row)
        if value.ndim == 1:
            value = _decode_picture(spec, row, value)
        if value.ndim == 2 and spec.num_channels == 1:
            value = value[..., None]
        if value.shape != shape:
            message = f"{spec.name!r} has shape {value.shape}, expected {shape}"
            raise RecordError("wrong_shape", message, row)
        pixels[row] = value
        present[row] = True
    return {"pixels": pixels, "present": present}


def _crop_picture(
    spec: ModalitySpec, row: int, uncropped: stored.UncroppedPicture, shape: tuple[int, int, int]
) -> UInt8[np.ndarray, "h w c"]:
    """One crop of a whole picture, at the modality's size."""
    picture = uncropped.picture
    if picture.ndim == 1:
        picture = _decode_picture(spec, row, picture)
    if picture.ndim != 3:
        message = f"{spec.name!r} has shape {picture.shape}, expected a picture"
        raise RecordError("wrong_shape", message, row)
    try:
        return stored.cut(picture, uncropped.crop, shape[:2])
    except ValueError as error:
        raise RecordError("bad_crops", f"{spec.name!r}: {error}", row) from error


def _decode_picture(
    spec: ModalitySpec, row: int, data: UInt8[np.ndarray, "n"]
) -> UInt8[np.ndarray, "h w c"]:
    """Pixels of a picture file of any size."""
    try:
        picture = picture_files.decode_rgb(data.tobytes(), upright=False)
    except picture_files.PictureError as error:
        raise RecordError(error.reason, f"{spec.name!r}: {error}", row) from error
    return picture_files.grey(picture)[..., None] if spec.num_channels == 1 else picture


def _collate_embedding(spec: ModalitySpec, values: Sequence) -> dict[str, np.ndarray]:
    shape = (len(values), spec.max_tokens, spec.embedding_dim)
    embeddings = blocks.empty(shape, np.dtype(ml_dtypes.bfloat16))
    length = np.zeros(len(values), np.int32)
    for row, value in enumerate(values):
        if value is None:
            continue
        if value.ndim != 2 or value.shape[1] != spec.embedding_dim:
            message = f"{spec.name!r} has shape {value.shape}, expected (n, {spec.embedding_dim})"
            raise RecordError("wrong_shape", message, row)
        count = min(len(value), spec.max_tokens)
        embeddings[row, :count] = value[:count]
        length[row] = count
    blocks.clear_padding(embeddings, length)
    return {"embeddings": embeddings, "length": length}


def _check_ids(spec: ModalitySpec, row: int, value: np.ndarray) -> None:
    """Check what a cast to the travelling dtype could hide; unsigned narrow ids need nothing."""
    kind, itemsize = value.dtype.kind, value.dtype.itemsize
    if kind == "u" and itemsize <= 2:
        return
    if kind not in "iu":
        message = f"{spec.name!r} has dtype {value.dtype}, expected integer ids"
        raise RecordError("wrong_type", message, row)
    wrong = value[(value < 0) | (value >= spec.vocab_size)]
    if wrong.size:
        raise _outside(spec, wrong.flat[0], row)


def _check_vocabulary(spec: ModalitySpec, ids: Integer[np.ndarray, "b ..."]) -> None:
    """One comparison per batch; only a bad batch pays for finding the row."""
    if ids.size and ids.max() >= spec.vocab_size:
        wrong: Bool[np.ndarray, "b n"] = (ids >= spec.vocab_size).reshape(len(ids), -1)
        row = int(wrong.any(1).argmax())
        raise _outside(spec, ids.reshape(len(ids), -1)[row][wrong[row]][0], row)


def _outside(spec: ModalitySpec, value: int | np.integer, row: int) -> RecordError:
    message = f"{spec.name!r} has id {int(value)}, allowed: 0..{spec.vocab_size - 1}"
    return RecordError("id_outside_vocabulary", message, row)


_COLLATE: Mapping[str, Callable[[ModalitySpec, Sequence], dict[str, np.ndarray]]] = {
    "grid": _collate_grid,
    "global": _collate_grid,
    "sequence": _collate_sequence,
    "pixels": _collate_pixels,
    "embedding": _collate_embedding,
}
