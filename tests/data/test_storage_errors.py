"""Storage that fails for a while is tried again, then named; it makes no record a left-out one."""

import bz2
import errno
import functools
import gzip
import io
import json
import os
import pathlib
import socket
import tarfile

import numpy as np
import pytest
from PIL import Image

from fourm_jax.data import datasets, reading, sidecars
from fourm_jax.data.published import layout
from fourm_jax.data.sources import tfds
from fourm_jax.data.storage import left_out, records, shard_writer, shards
from fourm_jax.jobs import import_records, pretokenize
from fourm_jax.utils import picture_files, storage_errors
from tests.data.sources import tfds_cases

BROKEN = OSError(errno.EIO, os.strerror(errno.EIO))
STALE = OSError(errno.ESTALE, os.strerror(errno.ESTALE))
# as array_record says it
IN_C = RuntimeError("pread() failed: Input/output error; reading a.array_record; at byte 169")


@pytest.fixture(autouse=True)
def paused(monkeypatch):
    """The pauses that were made."""
    made = []
    monkeypatch.setattr(storage_errors.time, "sleep", made.append)
    return made


def failing(function, times, error=BROKEN):
    """The function, which fails so many times before."""
    left = [error] * times

    def call(*arguments, **options):
        if left:
            raise left.pop()
        return function(*arguments, **options)

    return call


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (BROKEN, True),
        (STALE, True),
        (IN_C, True),
        (ConnectionResetError("by peer"), True),
        (TimeoutError("no answer"), True),
        (FileNotFoundError(errno.ENOENT, "none"), False),
        (PermissionError(errno.EACCES, "not yours"), False),
        (RuntimeError("Invalid header hash"), False),
        (ValueError("Input/output error"), False),
        (OSError("connection reset"), True),
        (socket.gaierror(socket.EAI_NONAME, "no such host"), True),
        (OSError(errno.ENOSPC, "full"), False),
        (FileNotFoundError("no dog.png"), False),
        (PermissionError("not yours"), False),
        (io.UnsupportedOperation("not readable"), False),
    ],
)
def test_what_is_transient_says_nothing_about_the_content(error, expected):
    assert storage_errors.is_transient(error) is expected


NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


def cut_short(suffix):
    file = io.BytesIO()
    Image.fromarray(NOISE).save(file, suffix)
    return lambda: Image.open(io.BytesIO(file.getvalue()[:900])).load()


@pytest.mark.parametrize(
    "decode",
    [
        cut_short("png"),
        cut_short("jpeg"),
        lambda: Image.open(io.BytesIO(b"no picture")),
        lambda: gzip.decompress(b"nothing zipped"),
        lambda: bz2.decompress(b"nothing zipped"),
        lambda: bz2.BZ2File(io.BytesIO(b"nothing zipped")).read(),
    ],
)
def test_what_a_decoder_says_of_bytes_is_damage_though_it_is_an_os_error(decode):
    with pytest.raises(OSError) as caught:
        decode()
    assert caught.value.errno is None
    assert not storage_errors.is_transient(caught.value)


def test_what_storage_says_under_a_decoder_is_storage():
    class Remote(io.BytesIO):
        def read(self, *_):
            raise OSError("connection reset")

    with pytest.raises(OSError, match="connection reset") as caught:
        Image.open(Remote(b"far away")).load()
    assert storage_errors.is_transient(caught.value)


def test_a_failure_that_passes_costs_pauses_only(paused):
    assert storage_errors.retried(failing(abs, 3), -2, file="a") == 2
    assert paused == [0.5, 2.0, 5.0]


def test_a_failure_that_stays_is_an_error_that_names_the_file(paused):
    with pytest.raises(storage_errors.StorageError, match=r"a/b.png cannot be .* tried 4 times"):
        storage_errors.retried(failing(abs, 4), -2, file="a/b.png")
    with pytest.raises(ValueError, match="no number"):
        storage_errors.retried(failing(abs, 1, ValueError("no number")), -2, file="a")
    assert len(paused) == 3


def picture(folder, monkeypatch, times):
    path = folder / "dog.png"
    Image.new("RGB", (4, 2)).save(path)
    monkeypatch.setattr(pathlib.Path, "read_bytes", failing(pathlib.Path.read_bytes, times))
    return lambda: picture_files.decode_rgb(path).shape, (2, 4, 3)


def caption(folder, monkeypatch, times):
    path = folder / "dog.png"
    path.touch()
    path.with_suffix(".txt").write_text("a dog")
    monkeypatch.setattr(pathlib.Path, "read_bytes", failing(pathlib.Path.read_bytes, times))
    return lambda: sidecars.captions(path, pathlib.PurePath()), ["a dog"]


def tar(folder):
    path = folder / "dog.tar"
    content = json.dumps(["a dog"]).encode()
    with tarfile.open(path, "w") as file:
        info = tarfile.TarInfo("0.json")
        info.size = len(content)
        file.addfile(info, io.BytesIO(content))
    return path


def member(folder, monkeypatch, times):
    place = layout.index_shard(tar(folder).parent, "dog").files["0"]
    monkeypatch.setattr(pathlib.Path, "open", failing(pathlib.Path.open, times))
    return lambda: import_records.read(place), ["a dog"]


def index(folder, monkeypatch, times):
    path = tar(folder)
    monkeypatch.setattr(pathlib.Path, "open", failing(pathlib.Path.open, times, STALE))
    return lambda: list(layout.index_shard(path.parent, "dog").files), ["0"]


def shard(folder, monkeypatch, times):
    record = {"n": np.array([7], np.uint8)}
    shard_writer.write_split(folder, "dog", {}, 1, lambda _: iter([record]))
    reader = shards.Reader(folder, "dog")

    class Opened:
        read = staticmethod(failing(lambda rows: [records.encode(record)], times, IN_C))

    monkeypatch.setattr(shards, "_open", functools.cache(lambda file, content: Opened))
    return lambda: reader[0]["n"].tolist(), [7]


def prepared(folder, monkeypatch, times):
    data = [tfds_cases.serialize({"note": ["a dog"]})]
    tfds_cases.prepare(folder, "dog", "1.0.0", {"note": tfds_cases.F.Text()}, data)
    fields = {"caption": ("text", "note")}
    source = tfds.make_source("train", dataset="dog", fields=fields, data_dir=str(folder))

    class Examples:
        read = staticmethod(failing(source._examples.__getitem__, times, IN_C))

        def __getitem__(self, index):
            return self.read(index)

    source._examples = Examples()
    return lambda: source[0]["caption"], "a dog"


FILES = [picture, caption, member, index, shard, prepared]


@pytest.mark.parametrize("make", FILES)
def test_what_reads_records_tries_again(tmp_path, monkeypatch, paused, make):
    read, expected = make(tmp_path, monkeypatch, 2)
    assert read() == expected
    assert len(paused) == 2


@pytest.mark.parametrize("make", FILES)
def test_a_record_on_storage_that_fails_is_an_error_and_not_left_out(tmp_path, monkeypatch, make):
    read, _ = make(tmp_path, monkeypatch, 99)
    with pytest.raises(storage_errors.StorageError, match=f"{tmp_path}/.*dog"):
        left_out.attempt(read)


UNNUMBERED = OSError("connection reset")  # as the source of a user may say it
DAMAGED = RuntimeError("bad magic number")


class Three:
    """Three records; the source of a user fails `times` times before it gives the second."""

    def __init__(self, error, times):
        self.read = failing(lambda index: {"n": np.full(1, index, np.uint8)}, times, error)

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return self.read(index) if index == 1 else {"n": np.full(1, index, np.uint8)}


class Together(Three):
    """The same, which reads several at once."""

    def records(self, indices):
        rows = [self[int(index)]["n"] for index in indices]
        return {"n": np.stack(rows)}


def export(source, folder):
    job = pretokenize.Job(
        source=source, output=folder, split="train", recipe={}, records_per_shard=3
    )
    return pretokenize.export(job, ["n"])


def batch(source, number=1, limit=9):
    dataset = datasets.Dataset(name="numbers", source=source, fields={})
    reader, rows = reading.Fields((dataset,), ("n",)), [reading.Reference(0, number)]
    others = iter([reading.Reference(0, 2)])
    found, left = reading.read(
        reader, rows, [0.0], following=lambda _: others, max_left_out_records=limit
    )
    return found["n"].tolist(), [one.message for one in left]


@pytest.mark.parametrize("error", [STALE, UNNUMBERED])
@pytest.mark.parametrize("source", [Three, Together])
def test_any_source_is_read_again(tmp_path, paused, source, error):
    assert batch(source(error, 2)) == ([[1]], [])
    assert len(paused) == 2
    assert export(source(error, 3), tmp_path).num_records == 3
    assert len(paused) == 5


@pytest.mark.parametrize("error", [STALE, UNNUMBERED])
@pytest.mark.parametrize("source", [Three, Together])
def test_no_job_finishes_a_split_without_such_a_record(tmp_path, source, error):
    with pytest.raises(
        storage_errors.StorageError, match=rf"record \d cannot .*{str(error)[-5:-1]}"
    ):
        export(source(error, 99), tmp_path)
    assert not list(tmp_path.glob("*.array_record"))


@pytest.mark.parametrize("error", [STALE, UNNUMBERED])
@pytest.mark.parametrize("source", [Three, Together])
def test_no_training_replaces_such_a_record(source, error):
    message = "data set 'numbers', record 1 cannot be read at the moment, tried 4 times"
    with pytest.raises(storage_errors.StorageError, match=message):
        batch(source(error, 99))


@pytest.mark.parametrize("source", [Three, Together])
def test_damage_that_a_source_tells_in_any_way_is_left_out_where_that_is_allowed(source):
    [value], [message] = batch(source(DAMAGED, 99))
    assert value == [2]
    assert message == "data set 'numbers', record 1: RuntimeError: bad magic number"
    with pytest.raises(ValueError, match="record 1: RuntimeError: bad magic number") as caught:
        batch(source(DAMAGED, 99), limit=0)
    assert isinstance(caught.value.__cause__.__cause__.__cause__, RuntimeError)
