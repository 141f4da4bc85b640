"""Generated ids -> raw signals: images, maps, vectors, and typed values of texts."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Num

from fourm_jax.modalities import serializers
from fourm_jax.modalities.parsed import Dropped, Parsed
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.tokenizers.base import SequenceTokenizer, Tokenizer, Tokenizers
from fourm_jax.tokenizers.signal import Signal


@dataclasses.dataclass(frozen=True)
class Decoded:
    """One modality of a batch in its natural form.

    Attributes:
      raw: array [b, ...] of the tokenizer; for sequences a list of typed values (`Caption`,
        `Boxes`, ...).
      texts: of sequences, what was generated; empty for other kinds.
      dropped: per row what of the text carried nothing valid.
    """

    raw: Any
    texts: tuple[str, ...] = ()
    dropped: tuple[tuple[Dropped, ...], ...] = ()


class DecodedResults(dict[str, Decoded]):
    """Decoded results by modality; one that is not decoded says which tokenizer it lacks."""

    def __init__(self, decoded: Mapping[str, Decoded], lacking: Mapping[str, str]):
        """`lacking` says for every other modality why it is not decoded."""
        super().__init__(decoded)
        self.lacking = dict(lacking)

    def __missing__(self, name: str) -> Decoded:
        raise KeyError(self.lacking.get(name, f"{name!r} was not generated"))


def decode(
    spec: ModalitySpec,
    ids: Int[np.ndarray, "b l"],
    known: Bool[np.ndarray, "b l"],
    tokenizers: Tokenizers,
) -> Decoded | None:
    """Decode one modality; None where its tokenizer is not at hand.

    Text that makes no sense is reported in `dropped`, never raised.
    """
    tokenizer = tokenizers.get(spec.tokenizer)
    if spec.kind == "sequence" and isinstance(tokenizer, SequenceTokenizer):
        return _sequence(spec, ids, known, tokenizer)
    if spec.kind != "sequence" and isinstance(tokenizer, Tokenizer):
        return Decoded(tokenizer.decode(as_grid(spec, ids)))
    return None


def combine(
    raw: Num[np.ndarray, "b·samples ..."], num_samples: int, signal: Signal
) -> Num[np.ndarray, "b ..."]:
    """Mean over the samples of each row, which lie next to each other, or most frequent value."""
    samples = raw.reshape(-1, num_samples, *raw.shape[1:])
    if signal.kind == "continuous":
        mean = samples.mean(axis=1)
        if signal.unit and raw.dtype.kind == "f":  # directions, of which the mean is shorter
            mean = mean / np.maximum(np.linalg.norm(mean, axis=-1, keepdims=True), 1e-6)
        return (mean if signal.dtype == "float32" else np.rint(mean)).astype(raw.dtype)
    values = np.unique(samples)
    votes = np.stack([(samples == value).sum(axis=1) for value in values])
    return values[votes.argmax(axis=0)]


def as_grid(spec: ModalitySpec, ids: np.ndarray) -> np.ndarray:
    """Flat positions [b, l, ...] in the shape that the tokenizer decodes, [b, y, x, ...]."""
    shape = spec.grid if spec.kind == "grid" else (spec.max_tokens,)
    codes = (spec.codes_per_position,) if spec.codes_per_position > 1 else ()
    return np.asarray(ids).reshape(len(ids), *shape, *codes, *np.shape(ids)[2:])


def _sequence(
    spec: ModalitySpec,
    ids: Int[np.ndarray, "b l"],
    known: Bool[np.ndarray, "b l"],
    text: SequenceTokenizer,
) -> Decoded:
    texts = [text.decode_content(row[mask]) for row, mask in zip(ids, known, strict=True)]
    parsed: list[Parsed] = [serializers.get(spec.text_form).parse(value) for value in texts]
    return Decoded(
        [row.value for row in parsed], tuple(texts), tuple(row.dropped for row in parsed)
    )
