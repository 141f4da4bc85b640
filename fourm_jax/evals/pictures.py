"""Pictures for people: uint8 [h, w, 3], and their PNG files."""

import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image

Picture = UInt8[np.ndarray, "_h _w 3"]  # _: pictures of one call may differ in size


def png(picture: Picture) -> bytes:
    """Encode as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
