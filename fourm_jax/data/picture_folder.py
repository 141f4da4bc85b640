"""Pictures of a user's own: files of a folder, decoded with care, and the captions beside them."""

import hashlib
import json
import os
import pathlib
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
SIDECARS = (".txt", ".json")
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")  # Pillow's names of these
MAX_PIXELS = 64 * 2**20  # of a file, checked before it is decoded
MAX_RATIO = 8  # longer side / shorter side; also bounds what a record holds
MAX_SIDECAR_BYTES = 2**20

# What cameras and programs call a picture that nobody has named.
_UNNAMED = frozenset(
    {"img", "image", "dsc", "dscn", "dscf", "pxl", "mvimg", "pict", "picture", "photo", "scan"}
    | {"screenshot", "untitled", "edited", "copy", "whatsapp", "at"}
)
_GREY_16 = ("I;16", "I;16B", "I;16L", "I;16N")


def find(directory: os.PathLike | str) -> list[str]:
    """Paths of the pictures below a folder, relative to it, sorted; hidden ones are left out.

    Raises:
      ValueError: no such folder, or no picture in it (says which endings are looked for).
      OSError: a folder that may not be read.
    """
    root = pathlib.Path(directory)
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder")
    found, others = [], 0
    for folder, folders, names in os.walk(root, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = pathlib.Path(folder, name)
            shown = not name.startswith(".") and path.suffix.lower() in SUFFIXES
            if shown and not path.is_dir():
                found.append(path.relative_to(root).as_posix())
            else:
                others += 1
    if not found:
        raise ValueError(
            f"{root}: no picture among {others} files; looked for names ending in "
            f"{', '.join(SUFFIXES)}"
        )
    return sorted(found)


def _raise(error: OSError) -> None:
    raise error


def fingerprint(directory: os.PathLike | str, files: Iterable[str]) -> str:
    """sha256 over names and sizes of the pictures and their sidecars."""
    root, digest = pathlib.Path(directory), hashlib.sha256()
    for file in files:
        for path in (root / file, *_sidecars(root / file)):
            name = path.relative_to(root).as_posix()
            entry = f"{name}\0{path.stat().st_size if path.is_file() else -1}\0"
            digest.update(entry.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def read(
    path: os.PathLike | str, image_size: int
) -> tuple[UInt8[np.ndarray, "h w 3"], tuple[int, int]]:
    """Decode a picture, upright, and resize it so that its shorter side has `image_size` pixels.

    Transparent parts become white, 16-bit grey becomes 8-bit, of several frames the first is taken.

    Returns:
      Pixels, and the (height, width) that the upright picture had.

    Raises:
      ValueError: no picture, one that is damaged or cut short, one of more than `MAX_PIXELS`
        pixels, or one more than `MAX_RATIO` times as long as wide.
    """
    path = pathlib.Path(path)
    if not path.is_file():  # a pipe would block whoever opens it
        raise ValueError("unreadable picture: no plain file, or a link to none")
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise ValueError(f"{width} x {height} pixels, allowed: {MAX_PIXELS} in total")
            if max(width, height) > MAX_RATIO * min(width, height):
                raise ValueError(f"{width} x {height} pixels, allowed: sides up to 1:{MAX_RATIO}")
            picture = _rgb(ImageOps.exif_transpose(image))
    except Exception as error:  # decoders of damaged files raise whatever they like
        raise ValueError(
            f"unreadable picture: {str(error).replace(str(path), path.name)}"
        ) from error
    width, height = picture.size
    scale = image_size / min(width, height)
    size = round(width * scale), round(height * scale)
    small = picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    return np.asarray(small), (height, width)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in _GREY_16:
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode!r} have no known range")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def captions(path: os.PathLike | str) -> list[str]:
    """Captions of a picture; none if it has no name that says anything.

    From `<name>.txt` (one per line, UTF-8), else `<name>.json` (a text, {"caption": …} or a list of
    these), else from the file name: "red_ball-02.jpg" -> "red ball".

    Raises:
      ValueError: a sidecar that is too large, not UTF-8 or not of this form; one that two pictures
        of one name claim.
    """
    path = pathlib.Path(path)
    sidecars = _sidecars(path)
    if not sidecars:
        return _caption_of_name(path.stem)
    rivals = [other.name for other in _same_name(path, SUFFIXES) if not other.samefile(path)]
    sidecar = sidecars[0]
    if rivals:
        raise ValueError(
            f"{sidecar.name} could describe {path.name} or {rivals[0]}: rename one of them"
        )
    if sidecar.stat().st_size > MAX_SIDECAR_BYTES:
        raise ValueError(f"{sidecar.name} is larger than {MAX_SIDECAR_BYTES} bytes")
    try:
        text = sidecar.read_bytes().decode("utf-8-sig")
        lines = text.splitlines() if sidecar.suffix.lower() == ".txt" else _texts(json.loads(text))
        "".join(lines).encode()  # JSON can hold halves of characters
    except (ValueError, RecursionError, OSError) as error:
        raise ValueError(f"{sidecar.name} is not readable: {error}") from error
    return [" ".join(line.split()) for line in lines if line.split()]


def _texts(value: Any) -> list[str]:
    """Captions in a JSON value."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict) and "caption" in value:
        return _texts(value["caption"])
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    raise ValueError('a caption is a text, {"caption": ...} or a list of these')


def _caption_of_name(stem: str) -> list[str]:
    # Some systems store accents as characters of their own; other scripts always do.
    stem = unicodedata.normalize("NFC", stem)
    kept = [c if c.isalnum() or unicodedata.category(c)[0] == "M" else " " for c in stem]
    words = [word for word in "".join(kept).split() if not re.search(r"\d", word)]
    named = [word for word in words if len(word) > 1 and word.lower() not in _UNNAMED]
    return [" ".join(words)] if named else []


def _sidecars(path: pathlib.Path) -> list[pathlib.Path]:
    return [sidecar for sidecar in _same_name(path, SIDECARS) if sidecar.is_file()]


def _same_name(path: pathlib.Path, suffixes: Iterable[str]) -> list[pathlib.Path]:
    """Files that differ from this one in their ending only."""
    cased = (case for suffix in suffixes for case in (suffix, suffix.upper()))
    return [other for case in cased if (other := path.with_suffix(case)).exists()]
