"""Where the values of the published layout lie: an index of each shard, made without reading them.

    <modality>/shard-00000.tar       one member per record (docs/published.md#data-layout)
    <modality>/<folder>/<name>.npy   one file per record (docs/published.md#data-layout)
    <modality>/<name>.npy            the same without folders between: one shard, called "."

Damage is listed, not raised: a source refuses it, an import goes on with the rest.
"""

import pathlib
import tarfile
from collections.abc import Collection, Iterator
from typing import Any, BinaryIO, NamedTuple

from fourm_jax.data.published import file_decoders
from fourm_jax.data.storage import foreign_files
from fourm_jax.data.storage.left_out import LeftOutRecord, RecordError
from fourm_jax.utils import storage_errors

_CONTINUATIONS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
_MAX_CONTINUATION = 8192  # bytes: the longest path has 4,096
_CHUNK = 128 * tarfile.BLOCKSIZE  # of a tar, read at once


class Member(NamedTuple):
    """Where the bytes of one value lie."""

    file: pathlib.Path
    name: str
    offset: int
    size: int


class Index(NamedTuple):
    """Files of one shard of one modality by record key (name without extension)."""

    files: dict[str, Member]
    left_out: tuple[LeftOutRecord, ...]


class _Header(tarfile.TarInfo):
    """A header of bounded size: what continues one (a long name, attributes) is read as a whole,
    and older versions of Python search it in quadratic time."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        info = super().frombuf(buf, encoding, errors)
        if info.type in _CONTINUATIONS and not 0 <= info.size <= _MAX_CONTINUATION:
            raise ValueError(f"header of {info.size} bytes, allowed: {_MAX_CONTINUATION}")
        return info


FLAT = "."  # the shard of files that lie in the folder of the modality itself


def list_shards(folder: pathlib.Path, pattern: str = "*") -> list[str]:
    """Names of the shards (without .tar) and folders of one modality, sorted.

    Where there are neither, the files in the folder itself are one shard, `FLAT`.

    Raises:
      ValueError: no such modality folder (names those that are there), or nothing in it.
    """
    if not folder.is_dir():
        present = sorted(path.name for path in folder.parent.glob("*"))
        raise ValueError(f"{folder}: no such modality folder; found: {present or 'nothing'}")
    tars = {path.stem for path in folder.glob(pattern + ".tar")}
    found = tars | {path.name for path in folder.glob(pattern) if path.is_dir()}
    names = sorted(name for name in found if not foreign_files.is_foreign(name))
    if not names and pattern == "*" and _loose(folder):
        return [FLAT]
    if not names:
        raise ValueError(f"{folder}: no shard or folder {pattern!r} with files in it")
    return names


def announce_unread(folder: pathlib.Path, shards: Collection[str]) -> None:
    """Say how many files lie beside the shards of a modality, all of which are read.

    They are no records: beside tars lie indices, licenses and the like. But they may have been
    meant as some, where a folder or a tar found its way among plain files.
    """
    if FLAT not in shards:
        why = "they lie beside shards; records lie in tars, or all in folders, or all in none"
        foreign_files.announce_unread(folder, _loose(folder), why)


def _loose(folder: pathlib.Path) -> list[str]:
    """Files in the folder of a modality itself that are no tars."""
    return sorted(
        path.name
        for path in folder.iterdir()
        if path.suffix != ".tar" and path.is_file() and not foreign_files.is_foreign(path.name)
    )


def record_name(shard: str, key: str) -> str:
    """Name of a record among those of all shards."""
    return key if shard == FLAT else f"{shard}/{key}"


def index_shard(folder: pathlib.Path, shard: str) -> Index:
    """Index one shard; a key that is there twice belongs to no member.

    Raises:
      StorageError: it is not readable at the moment.
    """
    return storage_errors.retried(_index_shard, folder, shard, file=folder / shard)


def _index_shard(folder: pathlib.Path, shard: str) -> Index:
    index: dict[str, Member] = {}
    left_out: list[LeftOutRecord] = []
    repeated = set()
    for member in _find(folder, shard, left_out):
        key = split_name(member.name)[0]
        if key in index or key in repeated:
            other = index.pop(key, member).name
            repeated.add(key)
            message = f"{shard}/{key} is there twice ({other!r}, {member.name!r})"
            left_out.append(_left_out(member.file, key, "duplicated_key", message))
        else:
            index[key] = member
    return Index(index, tuple(left_out))


def read(member: Member) -> bytes:
    """Bytes of a member.

    Raises:
      RecordError: too large, not readable, or changed since it was indexed.
      StorageError: not readable at the moment.
    """
    if member.size > file_decoders.MAX_BYTES:
        message = f"member of {member.size} bytes, allowed: {file_decoders.MAX_BYTES}"
        raise RecordError("too_large", message)
    try:
        data = storage_errors.retried(_bytes, member, file=member.file)
    except storage_errors.StorageError:
        raise
    except OSError as error:
        raise RecordError("unreadable_file", str(error)) from error
    if len(data) < member.size:
        raise RecordError("damaged_tar", f"ends within member {member.name!r}")
    return data


def _bytes(member: Member) -> bytes:
    with member.file.open("rb") as file:
        file.seek(member.offset)
        return file.read(member.size)


def read_value(member: Member) -> Any:
    """Value of a member; RecordError naming file and member if it has none."""
    try:
        return file_decoders.decode(split_name(member.name)[1], read(member))
    except RecordError as error:
        message = f"{member.file}, member {member.name!r}: {error}"
        raise RecordError(error.reason, message) from error


def split_name(name: str) -> tuple[str, str]:
    """("a/b", ".json.gz") of "a/b.json.gz": the extension starts at the first dot of the name."""
    folder, _, last = name.rpartition("/")
    stem, dot, extension = last.partition(".")
    return (f"{folder}/{stem}" if folder else stem), dot + extension.lower()


def _left_out(file: pathlib.Path, key: str | None, reason: str, message: str) -> LeftOutRecord:
    return LeftOutRecord(place=str(file), record=key, reason=reason, message=message)


def _find(folder: pathlib.Path, shard: str, left_out: list[LeftOutRecord]) -> Iterator[Member]:
    tar = folder / f"{shard}.tar"
    if tar.is_file():
        yield from _tar_members(tar, left_out)
    if (folder / shard).is_dir():
        for file in sorted((folder / shard).iterdir()):
            if foreign_files.is_foreign(file.name):
                continue
            key = split_name(file.name)[0]
            if not file.is_file():  # a pipe or a device would block whoever opens it
                message = f"{file.name!r} is not a plain file"
                left_out.append(_left_out(file, key, "not_a_file", message))
            elif file.is_symlink() and not file.resolve().is_relative_to(folder.resolve().parent):
                message = f"{file.name!r} is a link that leads out of {folder.parent}"
                left_out.append(_left_out(file, key, "unsafe_link", message))
            else:
                yield Member(file, file.name, 0, file.stat().st_size)


def _tar_members(path: pathlib.Path, left_out: list[LeftOutRecord]) -> Iterator[Member]:
    """Members of a tar, or of several that were joined into one file."""
    size = path.stat().st_size
    start: int | None = 0

    def damaged(message: str) -> None:
        left_out.append(_left_out(path, None, "damaged_tar", message))

    try:
        with path.open("rb") as file:
            while start is not None:
                file.seek(start)
                with tarfile.open(fileobj=file, mode="r:", tarinfo=_Header) as tar:
                    for info in tar:
                        if info.size < 0 or info.offset_data + info.size > size:
                            damaged(f"cut short or damaged within member {info.name!r}")
                            return
                        yield from _checked_member(path, info, left_out)
                # A damaged header, and the end of the file, look like the end of the archive.
                if start and tar.offset == start:
                    damaged(f"what follows the end mark at byte {start} of {size} is no tar")
                    return
                file.seek(tar.offset)
                if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                    damaged(f"cut short or damaged at byte {tar.offset} of {size}: no end mark")
                    return
                start = _next_block(file)
    except (tarfile.TarError, ValueError, OverflowError, OSError, RecursionError) as error:
        if storage_errors.is_transient(error):
            raise
        damaged(f"not a readable tar of {size} bytes: {error}")


def _checked_member(
    path: pathlib.Path, info: tarfile.TarInfo, left_out: list[LeftOutRecord]
) -> Iterator[Member]:
    """The member, if it is a plain file of the data set; hostile ones are listed."""
    pure = pathlib.PurePosixPath(info.name)
    key = split_name(info.name)[0]
    if pure.is_absolute() or ".." in pure.parts:
        message = f"unsafe member name {info.name!r}"
        left_out.append(_left_out(path, key, "unsafe_name", message))
    elif info.isdir() or any(map(foreign_files.is_foreign, pure.parts)):
        return
    elif not info.isreg() or info.issparse():
        message = f"member {info.name!r} is not a plain file"
        left_out.append(_left_out(path, key, "not_a_file", message))
    else:
        yield Member(path, info.name, info.offset_data, info.size)


def _next_block(file: BinaryIO) -> int | None:
    """Where the next block begins that is not zero; None if only zeros follow."""
    start = file.tell()
    while chunk := file.read(_CHUNK):
        zeros = len(chunk) - len(chunk.lstrip(b"\0"))
        if zeros < len(chunk):
            return start + zeros - zeros % tarfile.BLOCKSIZE
        start += len(chunk)
    return None
