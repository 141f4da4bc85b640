"""Tiny data sets in the published layout, good or bad, for the tests of readers and imports."""

import io
import json
import pathlib
import tarfile

import numpy as np
from PIL import Image

SIZE = (48, 64)  # height, width of the pictures
CROPS = np.array([[0, 8, 48, 48, 0], [4, 0, 40, 40, 1]])


def npy(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def npz(**arrays):
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def dump(value):
    return json.dumps(value).encode()


def jpeg(level, size=SIZE):
    """A grey picture of one level."""
    file = io.BytesIO()
    Image.new("RGB", size[::-1], (level,) * 3).save(file, "JPEG")
    return file.getvalue()


def png(pixels, size=SIZE):
    """A picture of these RGB bytes."""
    file = io.BytesIO()
    Image.frombytes("RGB", size[::-1], pixels).save(file, "PNG")
    return file.getvalue()


def record(number):
    """Members of one record of two crops: {folder: (extension, bytes)}."""
    rng = np.random.default_rng(number)
    boxes = [{"boxes": [0.5, 0.5, 0.75, 1.0], "class_name": "dog", "score": 0.9}]
    return {
        "rgb": (".jpg", jpeg(10 * number)),
        "crop_settings": (".npy", npy(CROPS)),
        "tok_rgb@224": (".npy", npy(rng.integers(0, 16384, (2, 196)).astype(np.int16))),
        "tok_dinov2_global": (".npy", npy(rng.integers(0, 8192, (2, 16)).astype(np.int16))),
        "caption": (".json", dump([f"a dog on the left {number}", "two dogs"])),
        "det": (".json", dump({"instances": boxes})),
        "metadata": (".json", dump({"original_width": 64, "original_height": 48})),
    }


def write_tar(path, named):
    """Write {name: bytes}-like pairs; an entry may be a ready TarInfo instead (link, device)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in named:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def write(root: pathlib.Path, counts=(3,), changes=None, drop=()):
    """Write shards of so many records; record k of shard s is `record(10 * s + k)`.

    Args:
      changes: {(shard, number, folder): (extension, bytes)} to put there instead.
      drop: (shard, number, folder) that are left out.
    """
    for shard, count in enumerate(counts):
        for folder in record(0):
            named = []
            for number in range(count):
                place = (shard, number, folder)
                extension, data = (changes or {}).get(place) or record(10 * shard + number)[folder]
                if place not in drop:
                    named.append((f"{number:03d}{extension}", data))
            write_tar(root / folder / f"shard-{shard:05d}.tar", named)


def write_folders(root: pathlib.Path, count=3):
    """The records of shard 0 of `write` as files of one folder."""
    for number in range(count):
        for folder, (extension, data) in record(number).items():
            path = root / folder / "shard-00000" / f"{number:03d}{extension}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
