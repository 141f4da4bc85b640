"""Random but valid records and batches for any modalities: tests, `runlocal` configs, Colab."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fourm_jax.data import collate
from fourm_jax.modalities import registry, vocabulary
from fourm_jax.modalities.spec import ModalitySpec


def make_source(
    split: str,
    *,
    family: str = "scenes",
    names: Sequence[str] = (),
    num_records: int = 64,
    seed: int = 0,
) -> "FakeSource":
    """Source of random records whose fields are named like the modalities.

    Args:
      names: modalities of `family`; none = all of them.
    """
    names = tuple(names) or tuple(spec.name for spec in registry.FAMILIES[family])
    return FakeSource(registry.resolve(family, names), num_records, seed, split)


class FakeSource:
    """Record i is a function of (specs, seed, split, i)."""

    def __init__(self, specs: Sequence[ModalitySpec], num_records: int, seed: int, split: str):
        self._specs, self._num_records = tuple(specs), num_records
        self._seed = [seed, *split.encode()]

    def __len__(self) -> int:
        return self._num_records

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return record(self._specs, np.random.default_rng([*self._seed, index]))


def record(specs: Sequence[ModalitySpec], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Random record: full grids, sequences of any length that end with [EOS]."""
    fields: dict[str, np.ndarray] = {}
    for spec in specs:
        fields[spec.name] = value = _value(spec, rng)
        if spec.chunked:  # chunks of two tokens, [EOS] a chunk of its own
            chunk = np.arange(len(value)) // 2
            chunk[-1] = len(value) // 2
            fields[spec.name + collate.CHUNK_SUFFIX] = chunk.astype(np.uint16)
    return fields


def batch(
    specs: Sequence[ModalitySpec], batch_size: int, seed: int = 0, *, absent: float = 0.0
) -> dict[str, Any]:
    """Random Batch (architecture §5).

    Args:
      absent: probability that a sample lacks a modality.
    """
    rng = np.random.default_rng(seed)
    rows = [record(specs, rng) for _ in range(batch_size)]
    fields = [
        {spec.name: spec.name for spec in specs if rng.random() >= absent}
        for _ in range(batch_size)
    ]
    return collate.collate(rows, fields, [0] * batch_size, specs)


def _value(spec: ModalitySpec, rng: np.random.Generator) -> np.ndarray:
    if spec.kind == "pixels":
        return rng.integers(0, 256, collate.picture_shape(spec), dtype=np.uint8)
    if spec.kind == "embedding":
        length = rng.integers(1, spec.max_tokens + 1)
        return rng.standard_normal((length, spec.embedding_dim), dtype=np.float32)
    dtype = collate.id_dtype(spec.vocab_size)
    if spec.kind == "sequence":
        # Odd lengths keep two-token chunks whole; sentinels and specials never occur in real text.
        length = 2 * rng.integers(0, (spec.max_tokens + 1) // 2) + 1
        first = vocabulary.PUBLISHED.first_coordinate_id
        first = first if first < spec.vocab_size else vocabulary.PUBLISHED.eos_id + 1
        ids = rng.integers(first, spec.vocab_size, length, dtype=dtype)
        ids[-1] = vocabulary.PUBLISHED.eos_id
        return ids
    codes = (spec.codes_per_position,) if spec.codes_per_position > 1 else ()
    return rng.integers(0, spec.vocab_size, (spec.max_tokens, *codes), dtype=dtype)
