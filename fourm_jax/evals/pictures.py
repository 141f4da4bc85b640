"""Pictures for people: uint8 [h, w, 3], and their files."""

import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

Picture = UInt8[np.ndarray, "_h _w 3"]  # _: pictures of one call may differ in size
SHOWN = 156  # pixels of a picture in sheets, at which labels are drawn


def png(picture: Picture) -> bytes:
    """Encode as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def animation(frames: Sequence[Picture], suffix: str, *, frame_ms: int = 120) -> bytes:
    """Encode pictures of one size as an endless animation; the last one stays for a second.

    Args:
      suffix: ".gif", or ".webp" without loss.

    Raises:
      ValueError: another suffix, or no frame.
    """
    if suffix not in (".gif", ".webp") or not frames:
        raise ValueError(
            f"animation {suffix!r} of {len(frames)} frames, allowed: .gif or .webp of at least one"
        )
    images = [Image.fromarray(np.ascontiguousarray(frame)) for frame in frames]
    durations = [frame_ms] * (len(images) - 1) + [1000]
    buffer = io.BytesIO()
    images[0].save(
        buffer,
        format=suffix[1:].upper(),
        save_all=True,
        append_images=images[1:],
        duration=durations,
        loop=0,
        lossless=True,
    )
    return buffer.getvalue()
