"""Files that wrong command lines name: what is none of what the command expects."""

import pathlib
import struct
import zlib

import numpy as np
from PIL import Image


def png(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims a size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def make(base: pathlib.Path) -> None:
    """Write the files that the lines name."""
    pixels = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    for name, size in {"small": (32, 32), "large": (640, 480), "dot": (1, 1)}.items():
        Image.fromarray(pixels[: size[1], : size[0]]).save(base / f"{name}.png")
    for mode in ("L", "RGBA"):
        Image.new(mode, (32, 32)).save(base / f"{mode}.png")
    (base / "cut.png").write_bytes((base / "small.png").read_bytes()[:300])
    (base / "huge.png").write_bytes(png(60_000, 60_000))
    (base / "big.png").write_bytes(png(12_000, 12_000))
    files = {"text.png": b"hello", "empty.png": b"", "file": b"x", "text.npy": b"xx"}
    files |= {"a.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\nshowpage\n"}
    files |= {"pickle.pth": b"\x80\x04" + b"x" * 64, "list.json": b"[1]"}
    for name, content in files.items():
        (base / name).write_bytes(content)
    np.save(base / "floats.npy", np.zeros((3, 3)))
    np.save(base / "nan.npy", np.full((32, 32), np.nan, np.float32))
    np.save(base / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.savez(base / "arrays.npz", a=np.zeros(3))
    (base / "arrays.npz").rename(base / "zip.npy")
    with (base / "huge.npy").open("wb") as file:
        shape = {"descr": "<f4", "fortran_order": False, "shape": (2**20, 2**20)}
        np.lib.format.write_array_header_1_0(file, shape)
    (base / "nothing").mkdir()
    _write_configs(base)
    _write_pictures(base)


def _write_configs(base: pathlib.Path) -> None:
    config = "import ml_collections\ndef get_config():\n    return ml_collections.ConfigDict({})\n"
    configs = {
        "raises": "raise RuntimeError('x')\n",
        "syntax": "def (\n",
        "without": "x = 1\n",
        "none": "def get_config(arg=None):\n    return None\n",
        "dict": "def get_config(arg=None):\n    return {}\n",
        "exits": "import sys\nsys.exit(3)\n",
        "empty": config,
        "positional": "def get_config(arg):\n    return arg.lower()\n",
        "other": config.replace("{}", "{'task': 'fourm', 'optimizer': 'adam', 'seed': 'x'}"),
    }
    for name, content in configs.items():
        (base / f"{name}.py").write_text(content)


def _write_pictures(base: pathlib.Path) -> None:
    odd, hard = base / "odd", base / "hard"
    odd.mkdir()
    hard.mkdir()
    small = (base / "small.png").read_bytes()
    for name in ("a.png", "b c.png", "d\ne.png", "é猫.png", "-rf.png", "'q\".png"):
        (odd / name).write_bytes(small)
    pathlib.Path(bytes(hard).decode() + "/\udcff\udcfe.png").write_bytes(small)
    (hard / "ok.png").write_bytes(small)
    (hard / "loop").symlink_to(hard)
    (hard / "dangling.png").symlink_to("/nope")
