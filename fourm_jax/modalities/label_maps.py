"""Published maps of classes: class c is stored as c and no class as 255; ours count from 0 = none.

No pixel says which of the two a map is, but the folder that it was published in does
(docs/published.md#modalities).
"""

import os
import pathlib
from typing import Any

import numpy as np
from jaxtyping import UInt8

FOLDERS = ("semseg_coco",)  # the published folder of semantics


def is_published(file: str | os.PathLike[str]) -> bool:
    """Whether a file lies in a published folder of such maps, at any depth."""
    return any(folder in FOLDERS for folder in pathlib.Path(file).absolute().parts[:-1])


def labels(stored: Any) -> UInt8[np.ndarray, "h w"]:
    """Labels of a published map of classes: (c + 1) mod 256, so that 0 is no class.

    Raises:
      ValueError: it is no map of classes in one byte each.
    """
    if not isinstance(stored, np.ndarray) or stored.dtype != np.uint8 or stored.ndim != 2:
        is_array = isinstance(stored, np.ndarray)
        found = f"{stored.dtype} of shape {stored.shape}" if is_array else type(stored).__name__
        raise ValueError(f"{found}, expected classes uint8 [h, w]")
    return stored + np.uint8(1)  # 255 + 1 wraps to 0
