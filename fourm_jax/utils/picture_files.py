"""Picture files -> pixels: the one decoder, so that a file means the same wherever it comes in.

What each of Pillow's modes becomes as RGB:

    1, L, P, RGB, YCbCr, LAB, HSV, CMYK   its colours
    LA, PA, RGBA, a transparent colour    composited on white
    I;16, I (grey of 16 bits)             divided by 257, so that white is 255
    I beyond 16 bits, F                   refused: the values have no known range

A picture that comes alone is turned upright as its camera says (EXIF). One whose boxes, labels or
crop settings come with it is not (`upright=False`): they count the pixels as they are stored, and
neither TFDS nor the published pipeline turns pictures. Damaged EXIF data count as none, of several
frames the first is taken. Of Pillow's formats only those are read that call no other program.
"""

import io
import os
import pathlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image, UnidentifiedImageError

from fourm_jax.utils import storage_errors

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "JPEG2000", "AVIF")  # Pillow's names
# Endings of files in these formats.
SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".webp",
    ".bmp",
    ".tif",
    ".tiff",
    ".gif",
    ".jp2",
    ".jpx",
    ".avif",
)
MAX_PIXELS = 64 * 2**20  # of a picture, checked before it is decoded
MAX_BYTES = 256 * 2**20  # of a file

File = bytes | str | os.PathLike  # its content, or where it lies

_ORIENTATION = 0x0112  # EXIF tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_THEIR_SIDE = (5, 6, 7, 8)


class PictureError(ValueError):
    """A picture that cannot be used; `reason` is one word to count by."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self):
        return type(self), (self.reason, str(self))


def decode_rgb(file: File, *, upright: bool = True) -> UInt8[np.ndarray, "h w 3"]:
    """Colours of a picture.

    Args:
      upright: turn it as its camera says; False where aligned data come with it.

    Raises:
      PictureError: no picture, one that is damaged or cut short, of more than `MAX_PIXELS` pixels,
        or of values without a known range.
    """
    with _open(file) as image:
        return np.asarray(_rgb(_turned(image, upright)))


def decode_values(
    file: File, *, upright: bool = True
) -> UInt8[np.ndarray, "h w *c"] | UInt16[np.ndarray, "h w"]:
    """Values of a picture of one channel as they are stored: labels, palette indices, depth.

    Args:
      upright: see `decode_rgb`.

    Returns:
      uint8 [h, w] of modes 1 (0 or 255), L and P; uint16 [h, w] of 16-bit grey; of every other
      mode its colours, uint8 [h, w, 3].

    Raises:
      PictureError: see `decode_rgb`.
    """
    with _open(file) as image:
        image = _turned(image, upright)
        if _is_deep(image):
            return _sixteen_bits(image)
        if image.mode == "1":
            image = image.convert("L")
        return np.asarray(image if image.mode in ("L", "P") else _rgb(image))


def read_size(file: File, *, upright: bool = True) -> tuple[int, int]:
    """(height, width) of a picture; of most formats without decoding it.

    Args:
      upright: see `decode_rgb`.

    Raises:
      PictureError: see `decode_rgb`; pixels that are damaged may go unnoticed.
    """
    with _open(file) as image:
        size = image.height, image.width
        return size[::-1] if upright and _orientation(image) in _ON_THEIR_SIDE else size


def grey(rgb: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w"]:
    """Brightness of colours (ITU-R 601)."""
    return np.asarray(Image.fromarray(rgb).convert("L"))


@contextmanager
def _open(file: File) -> Iterator[Image.Image]:
    """An opened picture of allowed size; whatever is wrong with it is a PictureError."""
    try:
        data = file if isinstance(file, bytes) else _retried(pathlib.Path(file))
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                size = f"{image.width} x {image.height} pixels"
                raise PictureError("too_large", f"{size}, allowed: {MAX_PIXELS} in total")
            yield image
    except (PictureError, storage_errors.StorageError):
        raise
    except UnidentifiedImageError as error:
        message = f"unreadable picture: none of {', '.join(FORMATS)}"
        raise PictureError("unreadable_picture", message) from error
    except Image.DecompressionBombError as error:
        raise PictureError(
            "too_large", f"allowed: {MAX_PIXELS} pixels in total; {error}"
        ) from error
    except Exception as error:  # decoders of damaged files raise whatever they like
        raise PictureError("unreadable_picture", f"unreadable picture: {error}") from error


def _retried(path: pathlib.Path) -> bytes:
    return storage_errors.retried(_read, path, file=path)


def _read(path: pathlib.Path) -> bytes:
    if not path.is_file():  # a pipe would block whoever opens it
        raise PictureError("not_a_file", "unreadable picture: no plain file, or a link to none")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise PictureError("too_large", f"file of {size} bytes, allowed: {MAX_BYTES}")
    return path.read_bytes()


def _turned(image: Image.Image, upright: bool) -> Image.Image:
    image.load()  # before EXIF data are looked at: a PNG may have them behind its pixels
    turn = _TURNS.get(_orientation(image)) if upright else None
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION)
    except Exception:  # damaged EXIF data, beside pixels that may well be good
        return 1
    return value if isinstance(value, int) else 1


def _is_deep(image: Image.Image) -> bool:
    return image.mode == "I" or image.mode.startswith("I;16")


def _sixteen_bits(image: Image.Image) -> UInt16[np.ndarray, "h w"]:
    values = np.asarray(image)
    if image.mode == "I" and (values.min() < 0 or values.max() > 0xFFFF):
        message = "pixels of mode 'I' beyond 16 bits have no known range"
        raise PictureError("unknown_range", message)
    return values.astype(np.uint16)


def _rgb(image: Image.Image) -> Image.Image:
    if _is_deep(image):
        rounded = (_sixteen_bits(image).astype(np.uint32) + 128) // 257
        image = Image.fromarray(rounded.astype(np.uint8))
    elif image.mode == "F":
        raise PictureError("unknown_range", "pixels of mode 'F' have no known range")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
