"""Small files that are either complete or not there."""

import json
import os
from typing import Any

from etils import epath


def write_bytes(path: epath.PathLike, content: bytes) -> None:
    """Write `content` beside `path`, then rename: a kill never leaves half a file."""
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)


def write_text(path: epath.PathLike, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    write_bytes(path, text.encode())


def write_json(path: epath.PathLike, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: epath.PathLike) -> Any:
    """Read a JSON file.

    Raises:
      ValueError: the file is not JSON; names it.
    """
    try:
        return json.loads(epath.Path(path).read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
