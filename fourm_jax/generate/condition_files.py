"""Values of conditions as they are typed: a text, or a picture or array in a file."""

import pathlib

import numpy as np

from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.utils import picture_files


def read(value: str, spec: ModalitySpec) -> str | np.ndarray:
    """Text of a sequence modality, else the content of the file that `value` names.

    Raises:
      ValueError: no such file, or one that cannot be read (`picture_files.decode_rgb`,
        `read_array`).
    """
    if not _is_file(value):
        if spec.kind != "sequence":
            raise ValueError(f"{spec.name}={value}: no such file")
        return value
    return read_array(value) if value.endswith(".npy") else picture_files.decode_rgb(value)


def _is_file(value: str) -> bool:
    """Whether a value names a file; a long text is no name."""
    try:
        return pathlib.Path(value).is_file()
    except (OSError, ValueError):
        return False


def read_array(path: str) -> np.ndarray:
    """The array of a .npy file, whose header may claim no more than the file holds.

    Raises:
      ValueError: a damaged or cut file, or one that holds something else; nothing is unpickled.
    """
    try:
        return np.array(np.lib.format.open_memmap(path, mode="r"))
    except (ValueError, OSError, OverflowError, EOFError, SyntaxError) as error:
        raise ValueError(f"{path} is no whole .npy file of numbers: {error}") from error
