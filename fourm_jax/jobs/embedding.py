"""Vectors of many records on disk: an index that can be searched.

A folder with index.json (what the vectors are of), and per block of records either
`vectors-00000.npy` [k, d] with `keys-00000.json`, or, as ArrayRecord, shards of records {"key",
"vector"}. A block is written whole or not at all, so that the same call continues.
"""

import dataclasses
import io as stdlib_io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float

from fourm_jax.data import datasets as sources
from fourm_jax.data import reading
from fourm_jax.data.reading import Reference
from fourm_jax.data.storage import shards
from fourm_jax.generate import features, fitting
from fourm_jax.generate.generator import Generator
from fourm_jax.jobs import eval_data, shard_job
from fourm_jax.jobs.eval_data import EvalData
from fourm_jax.models import weights
from fourm_jax.utils import errors, io, plain_data, progress

INDEX = "index.json"
# Numbers of records -> their keys and vectors.
Embed = Callable[[range], tuple[list[str], Float[np.ndarray, "_k _d"]]]
FORMATS = ("npy", "array_record")
WEIGHTS = "weights"  # their fingerprint; an index of an older version does not know it
RULES: Mapping[str, plain_data.Rule] = {
    **dict.fromkeys(("source", "split", "features", "format", WEIGHTS), plain_data.TEXT),
    "condition": plain_data.list_of(plain_data.TEXT, 100),
    "data": plain_data.list_of(plain_data.DICT, 1_000),
    "tokenizers": plain_data.TEXT,
    "depth": plain_data.integer(0, 10**6),
    "num_records": plain_data.integer(1, 10**12),
    "num_dims": plain_data.integer(1, 10**9),
    "per_block": plain_data.integer(1, 10**9),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What is embedded.

    Attributes:
      source: of the model, for who searches later.
      condition: modalities of a record that the model sees, together.
      kind, depth: see `generate.features`.
      output: folder of the index.
      format: of its blocks.
      per_block: records of each.
    """

    source: str
    data: EvalData
    split: str
    condition: tuple[str, ...]
    kind: str
    output: epath.Path
    depth: int = 0
    num_records: int = 0
    format: str = "npy"
    per_block: int = 1_024


@dataclasses.dataclass(frozen=True, kw_only=True)
class Index:
    """Vectors, and what they are of.

    Attributes:
      keys: of the records.
      vectors: one row each.
      about: what index.json says.
    """

    keys: tuple[str, ...]
    vectors: Float[np.ndarray, "n d"]
    about: Mapping[str, Any]


def run(generator: Generator, job: Job, *, show_progress: bool = False) -> int:
    """Write the blocks that are not there yet; return the number of records.

    Raises:
      ValueError: an unknown modality, kind, depth or format, a split without records, or a folder
        that holds another index.
    """
    head, spec = features.parse(job.kind, generator.model)
    features.check_depth(generator.model, job.depth)
    if job.format not in FORMATS:
        raise ValueError(errors.unknown_value("format", job.format, FORMATS))
    for name in job.condition or ("",):
        if name not in generator.model.inputs:
            raise ValueError(errors.unknown_value("condition", name, generator.model.inputs))
    if head == "global" and spec is not None:
        generator.tokenizer(spec.name)  # which must be there
    specs = generator.model.modalities
    datasets = job.data.datasets(specs, job.split, job.num_records)
    references = [
        Reference(position, number)
        for position, one in enumerate(datasets)
        for number in range(min(job.num_records or len(one.source), len(one.source)))
    ]
    read = tuple(generator.spec(name) for name in job.condition)
    sources.check(datasets, read)

    def embed(block: range) -> tuple[list[str], Float[np.ndarray, "k d"]]:
        rows = references[block.start : block.stop]
        batch: Any = reading.read(reading.Tokens(datasets, read), rows, [0.0] * len(rows))[0]
        entries = {name: batch[name] for name in job.condition}
        vectors = generator.features(entries, job.kind, depth=job.depth)
        names = [datasets[one.dataset].name for one in rows]
        keys = [
            eval_data.key(name, job.split, one.record)
            for name, one in zip(names, rows, strict=True)
        ]
        return keys, vectors

    found = {
        "source": job.source,
        WEIGHTS: weights.fingerprint(generator.params),
        "data": job.data.describe(),
        "tokenizers": str(job.data.tokenizers or ""),
        "split": job.split,
        "features": job.kind,
        "depth": job.depth,
        "condition": list(job.condition),
        "format": job.format,
        "per_block": job.per_block,
        "num_records": len(references),
    }
    about = _rooted(found)
    begun = _begin(job.output, about)
    blocks = [
        range(start, min(start + job.per_block, len(references)))
        for start in range(0, len(references), job.per_block)
    ]
    write = _write_npy if job.format == "npy" else _write_shards
    num_dims = write(job, blocks, embed, begun, show_progress)
    io.write_json(job.output / INDEX, {**about, "num_dims": num_dims})
    return len(references)


def load(folder: epath.PathLike) -> Index:
    """Read a finished index.

    Raises:
      ValueError: there is none, or its files do not fit together.
    """
    folder = epath.Path(folder).expanduser()
    if not (folder / INDEX).exists():
        raise ValueError(f"no {INDEX} in {folder}: is `experiments.embed` through?")
    about = io.read_json(folder / INDEX)
    plain_data.check(about, RULES, folder / INDEX, required=RULES.keys() - {WEIGHTS})
    keys: list[str] = []
    parts: list[np.ndarray] = []
    if about["format"] == "npy":
        for number in range(-(-about["num_records"] // about["per_block"])):
            keys += io.read_json(_path(folder, "keys", number, "json"))["keys"]
            parts.append(fitting.read_array(str(_path(folder, "vectors", number, "npy"))))
    else:
        reader = shards.Reader(folder, about["split"])
        for number in range(len(reader)):
            keys.append(str(reader[number]["key"]))
            parts.append(np.asarray(reader[number]["vector"])[None])
    vectors = np.concatenate(parts)
    if vectors.shape != (about["num_records"], about["num_dims"]) or len(keys) != len(vectors):
        raise ValueError(
            f"{folder}: vectors {vectors.shape} and {len(keys)} keys, {INDEX} says "
            f"{about['num_records']} x {about['num_dims']}"
        )
    return Index(keys=tuple(keys), vectors=vectors, about=about)


def _write_npy(
    job: Job, blocks: Sequence[range], embed: Embed, about: Mapping[str, Any], show_progress: bool
) -> int:
    job.output.mkdir(parents=True, exist_ok=True)
    num_dims = 0
    for number, block in enumerate(
        progress.track(
            blocks,
            label="embed",
            unit="block",
            name=lambda block: f"{block.stop} records",
            enabled=show_progress,
        )
    ):
        path = _path(job.output, "vectors", number, "npy")
        if path.exists() and _path(job.output, "keys", number, "json").exists():
            num_dims = fitting.read_array(str(path)).shape[1]
            continue
        keys, vectors = embed(block)
        io.write_json(_path(job.output, "keys", number, "json"), {"keys": keys})
        content = stdlib_io.BytesIO()
        np.save(content, vectors, allow_pickle=False)
        io.write_bytes(path, content.getvalue())
        num_dims = vectors.shape[1]
    return num_dims


def _write_shards(
    job: Job, blocks: Sequence[range], embed: Embed, about: Mapping[str, Any], show_progress: bool
) -> int:
    def convert(block: range) -> Iterator[dict[str, Any]]:
        keys, vectors = embed(block)
        for key, vector in zip(keys, vectors, strict=True):
            yield {"key": key, "vector": vector}

    shard_job.write_blocks(
        shard_job.ShardJob(output=job.output, show_progress=show_progress),
        job.split,
        total=blocks[-1].stop,
        records_per_shard=job.per_block,
        block=job.per_block,
        convert=convert,
        recipe={key: value for key, value in about.items() if key not in ("num_records", WEIGHTS)},
        schema={"key": {}, "vector": {}},
    )
    first: dict[str, Any] = sources.open_source(
        "token_shards", job.split, {"directory": job.output}
    )[0]
    return len(first["vector"])


def _rooted(about: Mapping[str, Any]) -> dict[str, Any]:
    """The same with paths from the root: whoever searches later may stand in another folder.

    Older versions wrote paths as they were typed. A source that is no local path is a Hub id.
    """
    source, tokenizers = about["source"], about["tokenizers"]
    is_local = not io.is_remote(source) and epath.Path(source).expanduser().exists()
    return {
        **about,
        "source": os.fspath(io.absolute(source)) if is_local else source,
        "tokenizers": os.fspath(io.absolute(tokenizers)) if tokenizers else "",
        "data": [eval_data.rooted(group) for group in about["data"]],
    }


def _begin(output: epath.Path, about: Mapping[str, Any]) -> Mapping[str, Any]:
    """Note at the start what this index is; return what was noted, maybe by an older version.

    Raises:
      ValueError: the folder holds another index.
    """
    path = output / "job.json"
    if not path.exists():
        output.mkdir(parents=True, exist_ok=True)
        io.write_json(path, dict(about))
        return about
    noted = io.read_json(path)
    plain_data.check(noted, RULES, path, required=("source", "tokenizers", "data"))
    before = _rooted(noted)
    for key, value in about.items():
        if before.get(key, value if key == WEIGHTS else None) != value:
            raise ValueError(
                f"{output} holds another index: {key} is {before.get(key)!r} there, "
                f"{value!r} here; use another --output"
            )
    return noted


def _path(folder: epath.Path, name: str, number: int, suffix: str) -> epath.Path:
    return folder / f"{name}-{number:05}.{suffix}"
