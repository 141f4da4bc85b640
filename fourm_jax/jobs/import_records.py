"""One record of the published layout -> one record of our shards; what cannot be used is named.

Every crop of a record is kept (`crops`): image-like tokens and pictures as they are, texts cut to
each crop, written out and turned into ids, so that training only has to choose a crop.
"""

import dataclasses
import math
import types
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from jaxtyping import Int

from fourm_jax.data import collate
from fourm_jax.data.crops import fields, settings, stored
from fourm_jax.data.published import file_decoders, layout
from fourm_jax.data.storage import records
from fourm_jax.data.storage.left_out import RecordError
from fourm_jax.modalities import captions, serializers
from fourm_jax.modalities.coordinates import Changes
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.tokenizers.base import SequenceTokenizer
from fourm_jax.utils import picture_files

PICTURE = "rgb"  # record field of the picture, whatever pixels modalities read it
KEY = "key"  # record field: shard/name in the layout that it came from
MAX_CHARACTERS = 2**20  # of one text; the longest sequence takes a few thousand
_STORED_AS_FILE = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")  # first bytes of JPEG and PNG files
_ONE_PER_CROP = (serializers.PLAIN,)  # text forms whose lists may hold one value per crop
_NEED_SIZE = (fields.DetectedBoxes, fields.HumanPoses)

Parts = dict[str, np.ndarray]  # of one modality in one crop, by suffix of the field's name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rules:
    """How records are converted.

    Attributes:
      specs: modalities to import.
      has_pictures, has_crops: whether the layout has pictures, and crop settings. Pictures without
        settings count as one centred square crop; tokens with neither may be of several crops.
      keep_incomplete: whether a record may lack modalities that are missing or bad. Its picture and
        its crop settings it must have: nothing can be aligned without them.
      tokenizer: of the texts; needed by sequences.
      seed: of the draws that texts make (order of metadata, number of colours, query points).
    """

    specs: tuple[ModalitySpec, ...]
    has_pictures: bool
    has_crops: bool
    keep_incomplete: bool = False
    tokenizer: SequenceTokenizer | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.tokenizer is not None:
            self.tokenizer.vocabulary.check_masked("text tokenizer")
        for spec in self.specs:
            if not self.has_pictures and (
                spec.kind == "pixels" or isinstance(fields.RULES[spec.crop], _NEED_SIZE)
            ):
                raise ValueError(f"modality {spec.name!r} needs the folder of the pictures")
            if spec.kind == "sequence" and self.text(spec).vocab_size > spec.vocab_size:
                raise ValueError(
                    f"text tokenizer of {self.text(spec).vocab_size} ids, modality {spec.name!r} "
                    f"allows {spec.vocab_size}"
                )

    def text(self, spec: ModalitySpec) -> SequenceTokenizer:
        """The tokenizer of a text; ValueError if there is none."""
        if self.tokenizer is None:
            raise ValueError(f"modality {spec.name!r} is a text and needs a text tokenizer")
        return self.tokenizer


class Converted(NamedTuple):
    """Result of one record: None if it is dropped; what is wrong with each modality; and what was
    clipped or left out within each."""

    record: records.Record | None
    errors: Mapping[str, RecordError]
    changes: Mapping[str, Changes] = types.MappingProxyType({})


class _Frame(NamedTuple):
    """What all modalities of a record share."""

    key: str
    size: tuple[int, int] | None  # height, width of the picture
    rows: Int[np.ndarray, "k 5"] | None  # crop settings

    @property
    def num_crops(self) -> int:
        return 1 if self.rows is None else len(self.rows)


def convert(key: str, files: Mapping[str, layout.Member], rules: Rules) -> Converted:
    """Read, check and convert one record.

    Args:
      key: shard/name; also seeds the draws.
      files: where the value of each modality lies, by name; `PICTURE` and `settings.SETTINGS` too.

    Returns:
      Never raises on bad input; where picture or crop settings are bad, the rest is not looked at.
      The record has `KEY`, `settings.SETTINGS` int32 [k, 5], `PICTURE` uint8 [bytes] (the file) if
      a pixels modality is imported, and the other modalities as in `crops.stored`.
    """
    errors: dict[str, RecordError] = {}
    missing = [name for name in _wanted(rules) if name not in files]
    for name in missing:
        errors[name] = RecordError("missing_member", f"{key} has no {name}")
    record: records.Record = {KEY: key}
    try:
        frame = _frame(key, files, rules, record, errors)
    except RecordError:
        return Converted(None, errors)
    rows = [] if frame.rows is None else list(frame.rows)
    crops: list[Parts] = [{settings.SETTINGS: row} for row in rows] or [{}]
    changes: dict[str, Changes] = {}
    for spec in rules.specs:
        if spec.kind == "pixels" or spec.name in errors:
            continue
        try:
            value = read(files[spec.name])
            if spec.kind == "sequence":
                changes[spec.name] = _count_changes(spec, value, frame)
            parts = _IMPORT[spec.kind](spec, value, frame, rules)
        except RecordError as error:
            errors[spec.name] = error
            continue
        for crop, part in zip(crops, parts, strict=True):
            crop.update({spec.name + suffix: value for suffix, value in part.items()})
    if errors and not rules.keep_incomplete:
        return Converted(None, errors)
    record |= crops[0] if frame.rows is None else stored.stack(crops, rules.specs)
    arrays = {name: value for name, value in record.items() if isinstance(value, np.ndarray)}
    size = sum(array.nbytes for array in arrays.values())
    if size > records.MAX_BYTES // 2:  # the other half: room for what describes the arrays
        largest = max(arrays, key=lambda name: arrays[name].nbytes)
        message = f"record of {size} bytes, allowed: {records.MAX_BYTES // 2}"
        return Converted(None, {**errors, largest: RecordError("too_large", message)})
    if record.keys() <= {KEY, settings.SETTINGS}:
        empty = RecordError("empty_record", f"{key} holds nothing that could be learned from")
        return Converted(None, errors or {rules.specs[0].name: empty})
    return Converted(record, errors, changes)


def read(member: layout.Member) -> Any:
    """Value of a member; RecordError if it has none."""
    extension = layout.split_name(member.name)[1]
    return file_decoders.decode(extension, layout.read(member))


def _wanted(rules: Rules) -> list[str]:
    names = [spec.name for spec in rules.specs if spec.kind != "pixels"]
    return [PICTURE] * rules.has_pictures + [settings.SETTINGS] * rules.has_crops + names


def _frame(
    key: str,
    files: Mapping[str, layout.Member],
    rules: Rules,
    record: records.Record,
    errors: dict[str, RecordError],
) -> _Frame:
    """Read picture and crop settings; RecordError, which is in `errors`, if one is no good."""
    size = rows = None
    name = PICTURE
    try:
        if rules.has_pictures:
            if name in errors:
                raise errors[name]
            size = _read_picture(files[name], rules, record)
        name = settings.SETTINGS
        if rules.has_crops:
            if name in errors:
                raise errors[name]
            rows = _read_settings(files[name], size)
        elif size is not None:
            rows = settings.centre(size)
        else:
            rows = _versions(files, rules)
    except RecordError as error:
        errors[name] = error
        raise
    return _Frame(key, size, rows)


def _versions(files: Mapping[str, layout.Member], rules: Rules) -> Int[np.ndarray, "k 5"] | None:
    """Settings for as many crops as the first image-like tokens have; None for one."""
    for spec in rules.specs:
        if spec.kind in ("grid", "global") and spec.name in files:
            try:
                value = read(files[spec.name])
            except RecordError:  # which is listed when the modality is imported
                continue
            is_array = isinstance(value, np.ndarray) and value.size != spec.num_tokens
            if is_array and value.ndim >= 2 and len(value) <= settings.MAX_CROPS:
                return settings.unknown(len(value))
            return None
    return None


def _read_picture(member: layout.Member, rules: Rules, record: records.Record) -> tuple[int, int]:
    """Size of the picture; puts its file into the record if a modality wants it."""
    extension, data = layout.split_name(member.name)[1], layout.read(member)
    if not file_decoders.is_picture(extension):
        raise RecordError("unreadable_picture", f"{member.name!r} is not a picture file")
    try:
        if not any(spec.kind == "pixels" for spec in rules.specs):
            return picture_files.read_size(data, upright=False)
        pixels = picture_files.decode_rgb(data, upright=False)
    except picture_files.PictureError as error:
        message = f"{extension} file of {len(data)} bytes: {error}"
        raise RecordError(error.reason, message) from error
    is_small_file = data.startswith(_STORED_AS_FILE)
    record[PICTURE] = np.frombuffer(data, np.uint8) if is_small_file else pixels
    return pixels.shape[:2]


def _read_settings(member: layout.Member, size: tuple[int, int] | None) -> Int[np.ndarray, "k 5"]:
    value = read(member)
    try:
        return settings.check(value, size)
    except (ValueError, TypeError) as error:
        raise RecordError("bad_crops", str(error)) from error


def _import_ids(spec: ModalitySpec, value: Any, frame: _Frame, rules: Rules) -> list[Parts]:
    """Stored ids [crops, n] (or [n] of the one crop)."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iu":
        kind = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
        raise RecordError("wrong_type", f"{kind}, expected an array of integer ids")
    if value.size == spec.num_tokens:
        value = value.reshape(1, -1)
    if value.ndim < 2 or math.prod(value.shape[1:]) != spec.num_tokens:
        expected = f"(crops, {spec.num_tokens})"
        raise RecordError("wrong_token_count", f"ids of shape {value.shape}, expected {expected}")
    if len(value) != frame.num_crops:
        hint = "" if rules.has_crops else " (pictures of several need a folder of crop settings)"
        message = f"tokens of {len(value)} crops, the record has {frame.num_crops}{hint}"
        raise RecordError("unequal_crops", message)
    wrong = value[(value < 0) | (value >= spec.vocab_size)]
    if wrong.size:
        message = f"{wrong.size} ids like {wrong[0]}, allowed: 0..{spec.vocab_size - 1}"
        raise RecordError("id_outside_vocabulary", message)
    codes = (spec.codes_per_position,) if spec.codes_per_position > 1 else ()
    ids = value.reshape(len(value), spec.max_tokens, *codes)
    return [{"": row} for row in ids.astype(collate.id_dtype(spec.vocab_size))]


def _count_changes(spec: ModalitySpec, value: Any, frame: _Frame) -> Changes:
    try:
        return fields.count_changes(spec, value, frame.size)
    except Exception as error:  # hostile JSON breaks builders in every way there is
        what = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise RecordError("bad_text", what) from error


def _import_text(spec: ModalitySpec, value: Any, frame: _Frame, rules: Rules) -> list[Parts]:
    """Raw JSON or text, as the published transforms take it."""
    parts = []
    for index in range(frame.num_crops):
        try:
            written = _write(spec, value, frame, index, _rng(rules, frame, index))
            parts.append({} if written is None else _encode(spec, written, rules.text(spec)))
        except RecordError:
            raise
        except Exception as error:  # hostile JSON breaks builders in every way there is
            message = f"crop {index}: {type(error).__name__}: {error}"
            raise RecordError("bad_text", message) from error
    return parts


def _encode(spec: ModalitySpec, written: str | list[str], tokenizer: SequenceTokenizer) -> Parts:
    """Ids of a text, and their chunks if it is chunked."""
    count = sum(len(part) for part in written)
    if count > MAX_CHARACTERS:
        message = f"text of {count} characters, allowed: {MAX_CHARACTERS}"
        raise RecordError("too_large", message)
    ids, chunk = tokenizer.encode_sequence(
        written, max_tokens=spec.max_tokens, chunked=spec.chunked
    )
    chunks = {stored.CHUNK_SUFFIX: chunk.astype(np.uint16)} if spec.chunked else {}
    return {"": ids.astype(collate.id_dtype(spec.vocab_size)), **chunks}


def _write(
    spec: ModalitySpec, value: Any, frame: _Frame, index: int, rng: np.random.Generator
) -> str | list[str] | None:
    """Text of a value in one crop; None if the crop cannot have it."""
    per_crop = spec.text_form in _ONE_PER_CROP and isinstance(value, list)
    if per_crop and len(value) == frame.num_crops:
        value = value[index]
    if frame.rows is not None:
        crop, size = settings.crop_at(frame.rows, index), frame.size or (1, 1)  # see `_NEED_SIZE`
        value = fields.RULES[spec.crop](value, crop, fields.Sizes(size, size))
    return None if value is None else serializers.get(spec.text_form).serialize(value, rng)


def _import_embeddings(spec: ModalitySpec, value: Any, frame: _Frame, rules: Rules) -> list[Parts]:
    """Published {"emb": [captions, l, e], "mask_valid": [captions, l]}: one caption per crop."""
    if not isinstance(value, Mapping) or not {"emb", "mask_valid"} <= value.keys():
        raise RecordError("wrong_type", "expected an .npz file with emb and mask_valid")
    emb, valid = value["emb"], value["mask_valid"]
    if emb.dtype.kind != "f" or emb.ndim != 3 or emb.shape[2] != spec.embedding_dim or not len(emb):
        expected = f"floats (captions, length, {spec.embedding_dim})"
        raise RecordError("wrong_type", f"emb is {emb.dtype} {emb.shape}, expected {expected}")
    if valid.shape != emb.shape[:2] or valid.dtype.kind not in "biuf":
        message = f"mask_valid is {valid.dtype} {valid.shape}, emb {emb.shape}"
        raise RecordError("unequal_lengths", message)
    parts = []
    for index in range(frame.num_crops):
        aligned = len(emb) == frame.num_crops
        choice = index if aligned else int(_rng(rules, frame, index).integers(len(emb)))
        chosen = captions.select_embedding(emb, valid, choice)[: spec.max_tokens]
        if not np.isfinite(chosen).all():
            raise RecordError("not_finite", f"emb of caption {choice} holds NaN or infinity")
        parts.append({"": chosen.astype(ml_dtypes.bfloat16)} if len(chosen) else {})
    return parts


def _rng(rules: Rules, frame: _Frame, index: int) -> np.random.Generator:
    # The same for all modalities, so that a caption and its embedding draw the same one of several.
    return np.random.default_rng([rules.seed, zlib.crc32(frame.key.encode()), index])


_IMPORT: Mapping[str, Callable[[ModalitySpec, Any, _Frame, Rules], Sequence[Parts]]] = {
    "grid": _import_ids,
    "global": _import_ids,
    "sequence": _import_text,
    "embedding": _import_embeddings,
}
