"""Fuzz targets of data: records, shards' manifests and lists, the published layout's files."""

import gzip
import io
import json
import pathlib
import tarfile
from collections.abc import Iterator

import numpy as np

from fourm_jax.data import left_out_log, sidecars
from fourm_jax.data.published import file_decoders, layout
from fourm_jax.data.storage import left_out, records, shard_writer, shards
from fourm_jax.train import metrics
from tests.jobs import published_tars
from tests.stress import mutators
from tests.stress.fuzz import Target

RECORD = {
    "x": np.arange(10, dtype=np.int32),
    "nested": {"y": np.ones((2, 2), np.float32)},
    "caption": ["a", {"b": 1}],
}
LINE = {"place": "a.tar", "record": "a", "reason": "too_large", "message": "9 GB", "batch": 3}


def targets(folder: pathlib.Path) -> Iterator[Target]:
    """One target per reader."""
    yield from _records()
    yield from _manifests(folder)
    yield from _lists(folder)
    yield from _members()
    yield from _tars(folder)
    yield from _sidecars(folder)


def _records() -> Iterator[Target]:
    seeds = (records.encode(RECORD),)
    yield Target(name="record/bytes", seeds=seeds, read=records.decode)
    json_header = mutators.damage_json_header
    yield Target(name="record/header", seeds=seeds, read=records.decode, mutate=json_header)


def _manifests(folder: pathlib.Path) -> Iterator[Target]:
    directory = folder / "shards"
    shard_writer.write_split(directory, "train", {"r": 1}, 1, lambda _: iter([RECORD] * 3))
    path = shards.manifest_path(directory, "train")
    shard = next(iter(directory.glob("*.array_record")))
    manifest = path.read_bytes()

    def read_manifest(data: bytes) -> None:
        path.write_bytes(data)
        shards.Reader(directory, "train")

    yield Target(
        name="shard/manifest",
        seeds=(manifest,),
        read=read_manifest,
        mutate=mutators.damage_json,
    )

    def read_shard(data: bytes) -> None:
        path.write_bytes(manifest)
        shard.write_bytes(data)
        shards._open.cache_clear()
        reader = shards.Reader(directory, "train")
        for index in range(len(reader)):
            reader[index]

    def same_length(rng, data):
        damaged = bytearray(data)
        for _ in range(rng.choice((1, 1, 8, 100))):
            damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        return bytes(damaged)

    seeds = (shard.read_bytes(),)
    yield Target(name="shard/array_record", seeds=seeds, read=read_shard, mutate=same_length)


def _lists(folder: pathlib.Path) -> Iterator[Target]:
    path = shards.manifest_path(folder, "list").with_suffix(".jsonl")
    line = {name: value for name, value in LINE.items() if name != "batch"}

    def read_list(data: bytes) -> None:
        path.write_bytes(data)
        list(left_out.read_lines(path))

    def read_log(data: bytes) -> None:
        path.write_bytes(data)
        left_out_log._read(path)

    def read_history(data: bytes) -> None:
        (folder / metrics.HISTORY).write_bytes(data)
        metrics.read_history(folder)

    for name, seed, read in (
        ("list/left_out", line, read_list),
        ("list/left_out_log", LINE, read_log),
        ("list/metrics", {"step": 3, "loss": 0.5}, read_history),
    ):
        seeds = (json.dumps(seed).encode(),)
        yield Target(name=name, seeds=seeds, read=read, mutate=mutators.damage_json)


def _members() -> Iterator[Target]:
    files = {
        ".npy": published_tars.npy(np.arange(6).reshape(2, 3)),
        ".npz": published_tars.npz(emb=np.ones((1, 2, 3), np.float32), mask_valid=np.ones((1, 2))),
        ".json": json.dumps({"a": [1, 2, {"b": "c"}]}).encode(),
        ".json.gz": gzip.compress(b'{"a":[1]}', mtime=0),
        ".txt": "héllo".encode(),
    }
    for extension, seed in files.items():

        def read(data: bytes, extension: str = extension) -> None:
            file_decoders.decode(extension, data)

        mutate = mutators.damage_json if extension == ".json" else mutators.damage
        yield Target(name=f"member/{extension}", seeds=(seed,), read=read, mutate=mutate)


def _tars(folder: pathlib.Path) -> Iterator[Target]:
    modality = folder / "rgb"
    modality.mkdir()

    def read(data: bytes) -> None:
        (modality / "s.tar").write_bytes(data)
        index = layout.index_shard(modality, "s")
        for member in index.files.values():
            layout.read_value(member)
        if index.left_out:
            raise ValueError(index.left_out[0].message)

    tars = (_tar(tarfile.PAX_FORMAT), _tar(tarfile.GNU_FORMAT))
    yield Target(name="tar", seeds=tars, read=read)


def _tar(form: int) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for number in range(3):
            info = tarfile.TarInfo("b" * 150 * (number == 2) + f"{number}.json")
            info.size, info.pax_headers = 2, {"comment": "x"} if number == 1 else {}
            tar.addfile(info, io.BytesIO(b"{}"))
    return file.getvalue()


def _sidecars(folder: pathlib.Path) -> Iterator[Target]:
    picture = folder / "pictures" / "a.png"
    picture.parent.mkdir()
    picture.touch()

    def read(data: bytes) -> None:
        picture.with_suffix(".json").write_bytes(data)
        sidecars.captions(picture)

    seeds = (b'[{"caption": "a"}, "b"]',)
    yield Target(name="sidecar", seeds=seeds, read=read, mutate=mutators.damage_json)
