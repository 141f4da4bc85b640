"""Pictures of a user's own: which files of a folder they are, and their pixels at one size."""

import hashlib
import os
import pathlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from fourm_jax.data import sidecars
from fourm_jax.data.storage import foreign_files
from fourm_jax.data.storage.left_out import LeftOutRecord, RecordError
from fourm_jax.utils import picture_files

MIN_SIDE = 2  # pixels; of a single pixel, or a line of them, nothing is to be learned
MAX_RATIO = 8  # longer side / shorter side; also bounds what a record holds
# Pictures that the decoder does not read.
_OTHER_PICTURES = (".heic", ".heif", ".dng", ".cr2", ".nef", ".arw", ".jxl", ".svg", ".psd")


class Found(NamedTuple):
    """Files below a folder, by their path relative to it, sorted.

    Attributes:
      pictures: those to read.
      others: those that are neither pictures nor sidecars of pictures, and links to folders, which
        may lead anywhere.
    """

    pictures: list[str]
    others: list[LeftOutRecord]


def find(directory: os.PathLike | str) -> Found:
    """Sort the files below a folder; what other programs hide there is not looked at.

    Raises:
      ValueError: no such folder, or no picture in it (says which endings are looked for).
      OSError: a folder that may not be read.
    """
    root = pathlib.Path(directory)
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder")
    pictures, others = [], []
    for folder, folders, names in os.walk(root, onerror=_raise):
        folders[:] = [name for name in folders if not foreign_files.is_foreign(name)]
        links = [path for name in folders if (path := pathlib.Path(folder, name)).is_symlink()]
        others += [_link(path.relative_to(root)) for path in links]
        stems = {pathlib.PurePath(name).stem for name in names if _is_picture(name)}
        for name in names:
            path = pathlib.Path(folder, name)
            if foreign_files.is_foreign(name) or path.is_dir():
                continue
            if _is_picture(name):
                pictures.append(path.relative_to(root).as_posix())
            elif not (path.suffix in sidecars.ENDINGS and path.stem in stems):
                others.append(_other(path.relative_to(root)))
    if not pictures:
        raise ValueError(
            f"{root}: no picture among {len(others)} files; looked for names ending in "
            f"{', '.join(picture_files.SUFFIXES)}"
        )
    return Found(sorted(pictures), sorted(others, key=lambda one: one.place))


def _raise(error: OSError) -> None:
    raise error


def _is_picture(name: str) -> bool:
    return pathlib.PurePath(name).suffix.lower() in picture_files.SUFFIXES


def _other(path: pathlib.Path) -> LeftOutRecord:
    suffix = path.suffix.lower()
    if suffix in _OTHER_PICTURES:
        reason, message = "unsupported_format", f"{suffix} pictures are not read: make JPEG of them"
    elif path.suffix in sidecars.ENDINGS:
        reason, message = "sidecar_alone", "no picture has this name"
    elif suffix in sidecars.ENDINGS:
        reason, message = "sidecar_alone", f"its ending must be {suffix} or {suffix.upper()}"
    else:
        reason, message = "not_a_picture", "the ending is not that of a picture"
    return LeftOutRecord(place=path.as_posix(), reason=reason, message=message)


def _link(path: pathlib.Path) -> LeftOutRecord:
    message = "links to folders are not followed: copy or mount what is there"
    return LeftOutRecord(place=path.as_posix(), reason="linked_folder", message=message)


def fingerprint(directory: os.PathLike | str, files: Iterable[str]) -> str:
    """sha256 over names and sizes of the pictures and their sidecars."""
    root, digest = pathlib.Path(directory), hashlib.sha256()
    for file in files:
        for path in (root / file, *sidecars.find(root / file)):
            name = path.relative_to(root).as_posix()
            entry = f"{name}\0{path.stat().st_size if path.is_file() else -1}\0"
            digest.update(entry.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def read(
    path: os.PathLike | str, image_size: int
) -> tuple[UInt8[np.ndarray, "h w 3"], tuple[int, int]]:
    """Decode a picture and resize it so that its shorter side has `image_size` pixels.

    Returns:
      Pixels, and the (height, width) that the upright picture had.

    Raises:
      PictureError: see `picture_files.decode_rgb`.
      RecordError: a picture of fewer than `MIN_SIDE` pixels along a side, or more than `MAX_RATIO`
        times as long as wide.
    """
    rgb = picture_files.decode_rgb(path)
    height, width = rgb.shape[:2]
    if min(width, height) < MIN_SIDE:
        message = f"{width} x {height} pixels, allowed: {MIN_SIDE} and more along each side"
        raise RecordError("too_small", message)
    if max(width, height) > MAX_RATIO * min(width, height):
        message = f"{width} x {height} pixels, allowed: sides up to 1:{MAX_RATIO}"
        raise RecordError("too_narrow", message)
    scale = image_size / min(width, height)
    size = round(width * scale), round(height * scale)
    small = Image.fromarray(rgb).resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    return np.asarray(small), (height, width)
