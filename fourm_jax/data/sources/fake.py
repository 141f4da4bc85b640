"""Random but valid records and batches for any modalities: tests, `runlocal` configs, Colab."""

import dataclasses
from collections.abc import Mapping, Sequence

import ml_dtypes
import numpy as np

from fourm_jax.contracts import Batch
from fourm_jax.data import collate
from fourm_jax.modalities import registry, vocabulary
from fourm_jax.modalities.spec import ModalitySpec

# Realistic lengths of the published lists, [EOS] included: fewest, most, step. Captions of 10-40
# tokens, 0-8 boxes, 1-3 people, 1-7 colours, 10-21 metadata fields.
LENGTHS = {
    "caption": (11, 41, 1),
    "t5_caption": (10, 40, 1),
    "det": (1, 41, 5),
    "human_poses": (40, 118, 39),
    "sam_instance": (36, 204, 21),
    "color_palette": (6, 23, 1),
    "metadata": (21, 40, 1),
}


def make_source(
    split: str,
    *,
    family: str = "scenes",
    names: Sequence[str] = (),
    overrides: Mapping[str, Mapping] | None = None,
    num_records: int = 64,
    seed: int = 0,
    label: str = "",
    label_size: tuple[int, ...] = (),
    num_classes: int = 0,
) -> "FakeSource | Labelled":
    """Source of random records whose fields are named like the modalities.

    Args:
      names: modalities of `family`; none = all of them.
      overrides: {modality: {field: value}} as for the model; those of other modalities are ignored.
      label: adds a field of random labels of shape `label_size`: classes, or with `num_classes` 0
        positive numbers.
    """
    names = tuple(names) or tuple(spec.name for spec in registry.FAMILIES[family])
    own_overrides = {name: changes for name, changes in (overrides or {}).items() if name in names}
    source = FakeSource(registry.resolve(family, names, own_overrides), num_records, seed, split)
    return Labelled(source, label, label_size, num_classes) if label else source


class FakeSource:
    """Record i is a function of (specs, seed, split, i)."""

    def __init__(
        self, specs: Sequence[ModalitySpec], num_records: int, seed: int, split: str
    ) -> None:
        self._specs, self._num_records = tuple(specs), num_records
        self._seed = [seed, *split.encode()]

    def __len__(self) -> int:
        return self._num_records

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return record(self._specs, np.random.default_rng([*self._seed, index]))


@dataclasses.dataclass(frozen=True)
class Labelled:
    """Records with one field more, see `make_source`."""

    source: FakeSource
    label: str
    size: tuple[int, ...]
    num_classes: int

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(index)
        values = rng.integers(0, self.num_classes, self.size) if self.num_classes else None
        numbers = rng.uniform(0.5, 5.0, self.size).astype(np.float32)
        return {**self.source[index], self.label: np.asarray(numbers if values is None else values)}


def record(
    specs: Sequence[ModalitySpec],
    rng: np.random.Generator,
    lengths: Mapping[str, tuple[int, int, int]] | None = None,
) -> dict[str, np.ndarray]:
    """Random record: full grids, sequences that end with [EOS].

    Args:
      lengths: fewest, most and step of the lengths of some modalities, e.g. `LENGTHS`; the others
        have any length.
    """
    fields: dict[str, np.ndarray] = {}
    for spec in specs:
        fields[spec.name] = value = _value(spec, rng, (lengths or {}).get(spec.name))
        if spec.chunked:  # chunks of two tokens, [EOS] a chunk of its own
            chunk = np.arange(len(value)) // 2
            chunk[-1] = len(value) // 2
            fields[spec.name + collate.CHUNK_SUFFIX] = chunk.astype(np.uint16)
    return fields


def batch(
    specs: Sequence[ModalitySpec], batch_size: int, seed: int = 0, *, absent: float = 0.0
) -> Batch:
    """Random batch of tokens, pictures and vectors.

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


def _value(
    spec: ModalitySpec, rng: np.random.Generator, lengths: tuple[int, int, int] | None
) -> np.ndarray:
    if spec.kind == "pixels":
        return rng.integers(0, 256, spec.image_shape, dtype=np.uint8)
    if spec.kind == "embedding":
        length = _length(rng, lengths or (1, spec.max_tokens, 1), spec.max_tokens)
        numbers = rng.standard_normal((length, spec.embedding_dim), dtype=np.float32)
        return numbers.astype(ml_dtypes.bfloat16)  # as imports store them
    dtype = collate.id_dtype(spec.vocab_size)
    if spec.kind == "sequence":
        # Odd lengths keep two-token chunks whole; sentinels and specials never occur in real text.
        length = _length(rng, lengths or (1, spec.max_tokens, 2), spec.max_tokens)
        first = vocabulary.PUBLISHED.first_coordinate_id
        first = first if first < spec.vocab_size else vocabulary.PUBLISHED.eos_id + 1
        ids = rng.integers(first, spec.vocab_size, length, dtype=dtype)
        ids[-1] = vocabulary.PUBLISHED.eos_id
        return ids
    codes = (spec.codes_per_position,) if spec.codes_per_position > 1 else ()
    return rng.integers(0, spec.vocab_size, (spec.max_tokens, *codes), dtype=dtype)


def _length(rng: np.random.Generator, span: tuple[int, int, int], longest: int) -> int:
    fewest, most, step = span
    return min(fewest + step * int(rng.integers(0, (most - fewest) // step + 1)), longest)
