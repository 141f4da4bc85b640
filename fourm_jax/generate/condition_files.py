"""Values of conditions as they are typed: texts, JSON, and names of files."""

import pathlib
from typing import Any

from fourm_jax.generate import fitting
from fourm_jax.modalities import serializers
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.utils import io, picture_files

MAX_TEXT_BYTES = 2**20  # of a file


def read(value: str, spec: ModalitySpec) -> Any:
    """What `conditions.encode` takes, of one row.

    Args:
      value: of a sequence, a text, JSON such as [[255, 0, 0]] or {"brightness": 200}, or the name
        of a .txt or .json file; else ids as JSON, or the name of a picture or .npy file.

    Raises:
      ValueError: no such file, a damaged one, or JSON that is none.
    """
    if spec.kind == "sequence":
        return _read_text(value, spec)
    if value.startswith("["):
        return io.parse_json(value, spec.name)
    if not _is_file(value):
        hint = "" if pathlib.Path(value).suffix[:5] else ", and texts belong to text modalities"
        raise ValueError(f"{spec.name}={value}: no such file{hint}")
    if value.endswith(".npy"):
        return fitting.read_array(value)
    try:
        picture_files.read_size(value)
    except picture_files.PictureError as error:
        raise ValueError(f"{spec.name}={value}: {error}") from error
    return value


def _read_text(value: str, spec: ModalitySpec) -> Any:
    suffix = pathlib.Path(value[-16:]).suffix
    if suffix in (".txt", ".json") and _is_file(value):
        if pathlib.Path(value).stat().st_size > MAX_TEXT_BYTES:
            raise ValueError(f"{value} has more than {MAX_TEXT_BYTES} bytes: too large for a text")
        if suffix == ".json":
            return io.read_json(value)
        try:
            return pathlib.Path(value).read_text(encoding="utf-8-sig").strip()
        except UnicodeDecodeError as error:
            raise ValueError(f"{value} is no text in UTF-8: {error}") from error
    if _is_file(value):
        raise ValueError(
            f"{spec.name}={value} is a file, allowed: a text, or the name of a .txt or .json file"
        )
    if spec.text_form != serializers.PLAIN and value[:1] in ("[", "{"):
        return io.parse_json(value, spec.name)
    return value


def _is_file(value: str) -> bool:
    """Whether a value names a file; a long text is no name."""
    try:
        return pathlib.Path(value).is_file()
    except (OSError, ValueError):
        return False
