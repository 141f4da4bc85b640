"""Vectors of many records on disk: an index that can be searched.

A folder with index.json (what the vectors are of), and per block of records either
`vectors-00000.npy` [k, d] with `keys-00000.json`, or, as ArrayRecord, shards of records {"key",
"vector"}. A block is written whole or not at all, so that the same call continues. Bad records that
may be left out have neither key nor vector, and are listed as those of shard jobs.
"""

import dataclasses
import io as stdlib_io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from jaxtyping import Float

from fourm_jax.data import datasets as sources
from fourm_jax.data import pipeline, reading
from fourm_jax.data.datasets import Dataset
from fourm_jax.data.left_out_log import LeftOutLog
from fourm_jax.data.storage import left_out, shards
from fourm_jax.data.storage.left_out import LeftOutRecord
from fourm_jax.generate import features, fitting
from fourm_jax.generate.generator import Generator
from fourm_jax.jobs import eval_data, output_folder, shard_job
from fourm_jax.jobs.eval_data import EvalData
from fourm_jax.models import weights
from fourm_jax.utils import errors, io, plain_data, progress

INDEX, BEGUN = "index.json", "job.json"  # of a finished one, and of one that was begun
FORMATS = ("npy", "array_record")
# What an index of an older version does not know: the fingerprint of the weights, and how many
# records have no vector (which that version did not allow).
WEIGHTS, NUM_LEFT_OUT = "weights", "num_left_out"
RULES: Mapping[str, plain_data.Rule] = {
    **dict.fromkeys(("source", "split", "features", "format", WEIGHTS), plain_data.TEXT),
    "condition": plain_data.list_of(plain_data.TEXT, 100),
    "data": plain_data.list_of(plain_data.DICT, 1_000),
    "tokenizers": plain_data.TEXT,
    "depth": plain_data.integer(0, 10**6),
    "num_records": plain_data.integer(1, 10**12),
    "num_dims": plain_data.integer(1, 10**9),
    "per_block": plain_data.integer(1, 10**9),
    NUM_LEFT_OUT: plain_data.integer(0, 10**12),
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


class Embedded(NamedTuple):
    """A block of records: keys and vectors of the good ones, and the bad ones."""

    keys: list[str]
    vectors: Float[np.ndarray, "_k _d"]
    left_out: Sequence[LeftOutRecord]


Embed = Callable[[range], Embedded]  # of numbers of records


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
    """Write the blocks that are not there yet; return the number of vectors.

    Raises:
      ValueError: an unknown modality, kind, depth or format, a split without records, a folder that
        holds another index or other things, or more bad records than `job.data` allows.
    """
    head, spec = features.parse(job.kind, generator.model)
    features.check_depth(generator.model, job.depth, head)
    if job.format not in FORMATS:
        raise ValueError(errors.unknown_value("format", job.format, FORMATS))
    for name in job.condition or ("",):
        if name not in generator.model.inputs:
            raise ValueError(errors.unknown_value("condition", name, generator.model.inputs))
    if head == "global" and spec is not None:
        generator.tokenizer(spec.name)  # which must be there
    datasets = job.data.datasets(generator.model.modalities, job.split, job.num_records)
    sizes = [min(job.num_records or len(one.source), len(one.source)) for one in datasets]
    total = sum(sizes)
    sources.check(datasets, tuple(generator.spec(name) for name in job.condition))
    about = _rooted(
        {
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
            "num_records": total,
        }
    )
    begun = _begin(job.output, about)
    blocks = [
        range(start, min(start + job.per_block, total)) for start in range(0, total, job.per_block)
    ]
    write = _write_npy if job.format == "npy" else _write_shards
    num_vectors, num_dims = write(
        job, blocks, _embed(generator, job, datasets, sizes), begun, show_progress
    )
    found = {"num_records": num_vectors, NUM_LEFT_OUT: total - num_vectors, "num_dims": num_dims}
    io.write_json(job.output / INDEX, {**about, **found})
    return num_vectors


def check_output(output: epath.Path) -> None:
    """Refuse a folder that holds something and no index, such as a run or a data set.

    A data set has lists of left-out records and shards of the same names, and would lose them.

    Raises:
      ValueError: names the first thing that is there.
    """
    output_folder.check(output, BEGUN, "no index")


def _embed(
    generator: Generator, job: Job, datasets: tuple[Dataset, ...], sizes: Sequence[int]
) -> Embed:
    reader = reading.Tokens(datasets, tuple(generator.spec(name) for name in job.condition))
    log = LeftOutLog(job.data.max_left_out_records)
    log.add(0, [*left_out.read(job.output, job.split)])  # of the blocks that are there

    def embed(block: range) -> Embedded:
        found = pipeline.read_block(
            reader, block, sizes, max_left_out_records=job.data.max_left_out_records
        )
        for one in log.add(0, found.left_out):
            progress.announce(f"left-out record: {one.message}")
        entries = {name: found.batch[name] for name in job.condition}
        vectors = generator.features(entries, job.kind, depth=job.depth)
        keys = [
            eval_data.key(datasets[one.dataset].name, job.split, one.record)
            for one, is_good in zip(found.references, found.valid, strict=True)
            if is_good
        ]
        own = {(datasets[one.dataset].name, one.record) for one in found.references}
        bad = [one for one in found.left_out if (one.place, one.record) in own]
        return Embedded(keys, vectors[found.valid], bad)

    return embed


def load(folder: epath.PathLike) -> Index:
    """Read a finished index.

    Raises:
      ValueError: there is none, or its files do not fit together.
    """
    folder = epath.Path(folder).expanduser()
    if not (folder / INDEX).exists():
        raise ValueError(f"no {INDEX} in {folder}: is `experiments.embed` through?")
    about = io.read_json(folder / INDEX)
    plain_data.check(about, RULES, folder / INDEX, required=RULES.keys() - {WEIGHTS, NUM_LEFT_OUT})
    total = about["num_records"] + about.get(NUM_LEFT_OUT, 0)
    keys: list[str] = []
    parts: list[np.ndarray] = []
    if about["format"] == "npy":
        for number in range(-(-total // about["per_block"])):
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
) -> tuple[int, int]:
    """The number of vectors and of their dimensions."""
    job.output.mkdir(parents=True, exist_ok=True)
    num_vectors = num_dims = 0
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
            vectors = fitting.read_array(str(path))
        else:
            keys, vectors, bad = embed(block)
            left_out.write_part(job.output, job.split, number, len(blocks), bad)
            io.write_json(_path(job.output, "keys", number, "json"), {"keys": keys})
            content = stdlib_io.BytesIO()
            np.save(content, vectors, allow_pickle=False)
            io.write_bytes(path, content.getvalue())
        num_vectors, num_dims = num_vectors + len(vectors), vectors.shape[1]
    left_out.join(job.output, job.split, len(blocks))
    return num_vectors, num_dims


def _write_shards(
    job: Job, blocks: Sequence[range], embed: Embed, about: Mapping[str, Any], show_progress: bool
) -> tuple[int, int]:
    """The number of vectors and of their dimensions."""

    def convert(block: range) -> Iterator[shard_job.Entry]:
        keys, vectors, bad = embed(block)
        yield from bad
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
    written = sources.open_source("token_shards", job.split, {"directory": job.output})
    first: dict[str, Any] = written[0]
    return len(written), len(first["vector"])


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
      ValueError: the folder holds another index, or see `check_output`.
    """
    path = output / BEGUN
    check_output(output)
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
