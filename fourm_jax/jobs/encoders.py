"""How the raw field of a record becomes the tokens of one modality, batch by batch."""

import collections
import functools
import hashlib
import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Integer

from fourm_jax.data import collate
from fourm_jax.data.storage import foreign_files, left_out, records
from fourm_jax.data.storage.left_out import RecordError
from fourm_jax.modalities import serializers
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.tokenizers import base, trained
from fourm_jax.tokenizers.base import SequenceTokenizer
from fourm_jax.tokenizers.trained import TrainedTokenizer

# Records (or crops of them) and their numbers -> the fields that one modality adds to each, or why
# the record cannot have it. Numbers seed the draws of serializers: of a record its index in the
# source, of each crop another one.
Encoder = Callable[[Sequence[records.Record], Sequence[int]], list[records.Record | ValueError]]


def make_encoder(
    spec: ModalitySpec, tokenizers: epath.PathLike, seed: int | None
) -> tuple[Encoder, dict[str, Any]]:
    """Return the encoder of one modality and what the manifest says about its tokens.

    Raises:
      ValueError: no such tokenizer, or one whose vocabulary or grid is not the modality's; a text
        tokenizer of another layout, see `TextVocabulary.check_masked`.
    """
    if not spec.is_token:
        return copy(spec.name, spec.source), {"kind": spec.kind, "source": spec.source}
    directory = epath.Path(tokenizers) / spec.tokenizer
    if not directory.is_dir():
        present = sorted(p.name for p in epath.Path(tokenizers).glob("*")) or "nothing"
        raise ValueError(f"no tokenizer at {directory} for {spec.name!r}; found here: {present}")
    tokenizer = base.load(directory)
    if (spec.kind == "sequence") != isinstance(tokenizer, SequenceTokenizer):
        raise ValueError(f"tokenizer {directory} is of no family for {spec.kind} {spec.name!r}")
    if isinstance(tokenizer, TrainedTokenizer):
        encoder, vocab_size = _grid(spec, tokenizer), tokenizer.card.vocab_size
    else:
        tokenizer.vocabulary.check_masked(directory)
        encoder, vocab_size = _sequence(spec, tokenizer, seed), tokenizer.vocab_size
    if vocab_size > spec.vocab_size:
        raise ValueError(
            f"tokenizer {directory} has {vocab_size} ids, modality {spec.name!r} allows "
            f"{spec.vocab_size}: set its vocab_size"
        )
    return encoder, {
        "kind": spec.kind,
        "source": spec.source,
        "vocab_size": vocab_size,
        "tokenizer": spec.tokenizer,
        "fingerprint": fingerprint(directory),
    }


def fingerprint(directory: epath.PathLike) -> str:
    """sha256 over names and contents of the files of a tokenizer."""
    digest = hashlib.sha256()
    for path in sorted(epath.Path(directory).glob("*")):
        if foreign_files.is_foreign(path.name):
            continue
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def copy(name: str, source: str) -> Encoder:
    """Return the encoder that gives a field another name; vectors must be finite."""

    def encode_one(row):
        value = row.get(source)
        is_numeric = isinstance(value, np.ndarray) and value.dtype.kind not in "OSU"
        if is_numeric and not np.isfinite(value).all():
            return RecordError("not_finite", f"modality {name!r} holds NaN or infinity")
        return {name: value} if source in row else {}

    def encode(rows, indices):
        return [encode_one(row) for row in rows]

    return encode


def _grid(spec: ModalitySpec, tokenizer: TrainedTokenizer) -> Encoder:
    codes = (spec.codes_per_position,) if spec.codes_per_position > 1 else ()
    dtype = collate.id_dtype(spec.vocab_size)
    ids_shape = functools.cache(tokenizer.ids_shape)

    def check(raw):
        if not isinstance(raw, np.ndarray):
            raise ValueError(f"{type(raw).__name__}, expected an array")
        tokenizer.check(raw[None])
        shape = ids_shape(raw.shape)
        if math.prod(shape) != spec.num_tokens or (spec.kind == "grid" and shape[:2] != spec.grid):
            raise ValueError(
                f"tokenizer {tokenizer.card.name!r} makes tokens {shape} of {raw.shape}, the "
                f"modality has {spec.grid if spec.kind == 'grid' else spec.num_tokens}"
            )

    def encode(rows, indices):
        fields: list[records.Record | ValueError] = [{} for _ in rows]
        by_shape = collections.defaultdict(list)
        for number, row in enumerate(rows):
            if spec.source in row:
                if error := left_out.attempt(check, row[spec.source]):
                    fields[number] = _about(spec, error)
                else:
                    by_shape[row[spec.source].shape].append(number)
        for numbers in by_shape.values():
            # At least a full block: every record is encoded by the same compiled function.
            padded = numbers + numbers[-1:] * (trained.HOST_BATCH - len(numbers))
            raw = np.stack([rows[number][spec.source] for number in padded])
            ids: Integer[np.ndarray, "b ..."] = tokenizer.encode(raw)[: len(numbers)]
            ids = ids.reshape(len(numbers), spec.max_tokens, *codes).astype(dtype)
            for number, value in zip(numbers, ids, strict=True):
                fields[number] = {spec.name: value}
        return fields

    return encode


def _sequence(spec: ModalitySpec, tokenizer: SequenceTokenizer, seed: int | None) -> Encoder:
    serializer = serializers.get(spec.text_form)
    dtype = collate.id_dtype(spec.vocab_size)
    stream = zlib.crc32(spec.name.encode())

    def encode_one(row, index):
        if spec.source not in row:
            return {}
        rng = None if seed is None else np.random.default_rng([seed, stream, index])
        written = serializer.serialize(row[spec.source], rng)
        ids, chunk = tokenizer.encode_sequence(
            written, max_tokens=spec.max_tokens, chunked=spec.chunked
        )
        fields = {spec.name: ids.astype(dtype)}
        if spec.chunked:
            fields[spec.name + collate.CHUNK_SUFFIX] = chunk.astype(np.uint16)
        return fields

    def encode(rows, indices):
        fields = (left_out.attempt(encode_one, *pair) for pair in zip(rows, indices, strict=True))
        return [_about(spec, one) if isinstance(one, ValueError) else one for one in fields]

    return encode


def _about(spec: ModalitySpec, error: ValueError) -> ValueError:
    reason = left_out.reason_of(error, "bad_value")
    return RecordError(reason, f"modality {spec.name!r}: {error}")
