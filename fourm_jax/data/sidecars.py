"""Captions of a user's own pictures: from the file beside a picture, its name or its folder's."""

import json
import os
import pathlib
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

from fourm_jax.data.storage.left_out import RecordError
from fourm_jax.utils import picture_files, storage_errors

SUFFIXES = (".txt", ".json")
ENDINGS = (*SUFFIXES, *map(str.upper, SUFFIXES))  # as they may be written
MAX_BYTES = 2**20

# What cameras and programs call a picture that nobody has named.
_UNNAMED = frozenset(
    {"img", "image", "dsc", "dscn", "dscf", "pxl", "mvimg", "pict", "picture", "photo", "scan"}
    | {"screenshot", "untitled", "edited", "copy", "whatsapp", "at"}
)
# What folders are called that say nothing about the pictures in them.
_UNNAMED_FOLDERS = frozenset(
    {"images", "pictures", "photos", "data", "dataset", "jpg", "jpeg", "png", "rgb", "dcim"}
    | {"train", "training", "val", "valid", "validation", "test", "testing", "camera", "raw"}
)
# Keys of JSON files in which other programs keep outlines and boxes: LabelMe, COCO, VIA, Labelbox.
_FOREIGN_KEYS = frozenset({"shapes", "annotations", "regions", "objects", "imagePath"})
# Lines of numbers: class and box, as detectors of the YOLO family store labels.
_NUMBERS = re.compile(r"\s*\d+(\s+[-+.\deE]+){4,}\s*")


def find(path: os.PathLike | str) -> list[pathlib.Path]:
    """Sidecars of a picture, text before JSON."""
    return [sidecar for sidecar in _same_name(path, SUFFIXES) if sidecar.is_file()]


def captions(path: os.PathLike | str, folder: os.PathLike | str = "") -> list[str]:
    """Captions of a picture; none if it has no name that says anything.

    From `<name>.txt` (one per line, UTF-8), else `<name>.json` (a text, {"caption": …} or a list of
    these), else from the file name: "red_ball-02.jpg" -> "red ball", else from the folder's, where
    pictures are sorted into classes: "tabby_cat/0001.jpg" -> "tabby cat". Sidecars in which other
    programs keep labels (YOLO's rows of numbers, LabelMe's and COCO's JSON) hold no captions.

    Args:
      folder: of the picture, below the folder of all pictures.

    Raises:
      RecordError: a sidecar that is too large, not UTF-8 or not of this form; one that two pictures
        of one name claim.
    """
    path = pathlib.Path(path)
    for sidecar in find(path):
        lines = _lines(sidecar)
        if lines is None:
            continue
        rivals = _same_name(path, picture_files.SUFFIXES)
        others = [other.name for other in rivals if not other.samefile(path)]
        if others:
            message = (
                f"{sidecar.name} could describe {path.name} or {others[0]}: rename one of them"
            )
            raise RecordError("ambiguous_sidecar", message)
        return [" ".join(line.split()) for line in lines if line.split()]
    found = _caption_of_name(path.stem)
    for part in reversed(pathlib.PurePath(folder).parts):
        if not found and part.lower() not in _UNNAMED_FOLDERS:
            found = _caption_of_name(part)
    return found


def _lines(sidecar: pathlib.Path) -> list[str] | None:
    """Captions of a sidecar; None if it is another program's."""
    if sidecar.stat().st_size > MAX_BYTES:
        message = f"{sidecar.name} is larger than {MAX_BYTES} bytes"
        raise RecordError("unreadable_sidecar", message)
    try:
        text = storage_errors.retried(sidecar.read_bytes, file=sidecar).decode("utf-8-sig")
        if sidecar.suffix.lower() == ".txt":
            lines = text.splitlines()
            written = [line for line in lines if line.strip()]
            if written and all(map(_NUMBERS.fullmatch, written)):
                return None
        else:
            value = json.loads(text)
            if _is_foreign(value):
                return None
            lines = _texts(value)
        "".join(lines).encode()  # JSON can hold halves of characters
        return lines
    except storage_errors.StorageError:
        raise
    except (ValueError, RecursionError, OSError) as error:
        message = f"{sidecar.name} is not readable: {error}"
        raise RecordError("unreadable_sidecar", message) from error


def _is_foreign(value: Any) -> bool:
    return isinstance(value, dict) and "caption" not in value and bool(_FOREIGN_KEYS & value.keys())


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


def _same_name(path: os.PathLike | str, suffixes: Iterable[str]) -> list[pathlib.Path]:
    """Files that differ from this one in their ending only."""
    path = pathlib.Path(path)
    cased = (case for suffix in suffixes for case in (suffix, suffix.upper()))
    return [other for case in cased if (other := path.with_suffix(case)).exists()]
