"""Find damage in a run folder: checkpoints, shards and tokenizers against what was written."""

import dataclasses
import hashlib
from collections.abc import Iterator

from etils import epath

from fourm_jax.data.storage import shards
from fourm_jax.tokenizers import base, store
from fourm_jax.utils import digests
from fourm_jax.utils.run_folder import CHECKPOINTS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """A checkpoint, a shard or a tokenizer.

    Attributes:
      path: file or folder.
      verdict: for people.
      is_damaged: whether it is not what was written.
    """

    path: epath.Path
    verdict: str
    is_damaged: bool = False


def check(source: epath.PathLike) -> Iterator[Part]:
    """Yield every part that lies in `source` or below, folder by folder.

    Raises:
      ValueError: there is none.
    """
    source, found = epath.Path(source), False
    for folder in _folders(source):
        for part in _parts(folder):
            found = True
            yield part
    if not found:
        raise ValueError(f"no checkpoint, shard or tokenizer in {source}")


def _folders(folder: epath.Path) -> Iterator[epath.Path]:
    """The folder and those below it that are not inside a checkpoint."""
    if not folder.is_dir():
        return
    yield folder
    if folder.name != CHECKPOINTS:
        for path in sorted(folder.iterdir()):
            if not path.name.startswith("."):
                yield from _folders(path)


def _parts(folder: epath.Path) -> Iterator[Part]:
    if folder.name == CHECKPOINTS:
        numbers = sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())
        yield from (_checkpoint(folder / str(number)) for number in numbers)
    elif (folder / store.CARD).exists() or (folder / store.TEXT).exists():
        yield _tokenizer(folder)
    for manifest in sorted(folder.glob("*.json")):
        if any(folder.glob(f"{manifest.stem}-*-of-*")):
            yield from _shards(folder, manifest.stem)
    names = [path.name for path in folder.glob("*-*-of-*.array_record")]
    for split in sorted({name.split("-")[0] for name in names}):
        if not shards.manifest_path(folder, split).exists():
            yield _unfinished(folder, split)


def _checkpoint(folder: epath.Path) -> Part:
    damaged = digests.damaged(folder)
    if damaged is None:
        return Part(path=folder, verdict="no digests (written by an older version)")
    return _verdict(folder, digests.describe_damage(folder, damaged) if damaged else "")


def _tokenizer(folder: epath.Path) -> Part:
    try:
        base.load(folder)
    except ValueError as error:
        return _verdict(folder, str(error))
    return _verdict(folder, "")


def _shards(folder: epath.Path, split: str) -> Iterator[Part]:
    try:
        manifest = shards.read_manifest(folder, split)
    except ValueError as error:
        yield _verdict(shards.manifest_path(folder, split), str(error))
        return
    for shard in manifest.shards:
        path = folder / shard["file"]
        sound = _is_as_written(path, str(shard.get("sha256")))
        yield _verdict(path, "" if sound else "not as written")


def _unfinished(folder: epath.Path, split: str) -> Part:
    """Shards without a manifest: each has a receipt until the split is finished."""
    path = shards.manifest_path(folder, split)
    if any(folder.glob(f"{split}-*-of-*.json")):
        return Part(path=path, verdict="not finished: run the command that writes it again")
    return _verdict(path, "missing, and no command is writing this split")


def _is_as_written(path: epath.Path, expected: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == expected


def _verdict(path: epath.Path, damage: str) -> Part:
    return Part(
        path=path, verdict=f"DAMAGED: {damage}" if damage else "sound", is_damaged=bool(damage)
    )
