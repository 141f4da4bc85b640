"""Fuzz targets of pictures: every format, through the one decoder."""

import io
import pathlib
from collections.abc import Iterator

from PIL import Image, features

from fourm_jax.utils import picture_files
from tests.stress.fuzz import Target

NEEDS = {"WEBP": "webp", "AVIF": "avif", "JPEG2000": "jpg_2000"}  # parts of Pillow


def targets(folder: pathlib.Path) -> Iterator[Target]:
    """One target per format that this Pillow writes."""
    picture = Image.linear_gradient("L").resize((40, 30))
    for form in picture_files.FORMATS:
        if form in NEEDS and not features.check(NEEDS[form]):
            continue
        files = []
        for mode in ("RGB", "L"):
            file = io.BytesIO()
            picture.convert(mode).save(file, form)
            files.append(file.getvalue())
        yield Target(name=f"picture/{form}", seeds=files, read=_read)


def _read(data: bytes) -> None:
    picture_files.read_size(data)
    picture_files.decode_rgb(data)
    picture_files.decode_values(data)
