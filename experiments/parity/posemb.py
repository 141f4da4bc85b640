"""posemb/: sin-cos tables of trunk and tokenizers, and their bicubic resizing."""

import pathlib
import re
from collections.abc import Iterator

import numpy as np

from experiments.parity import quantity as quantities
from experiments.parity.quantity import Quantity
from fourm_jax.models.backbones import vit
from fourm_jax.ops import posemb

TOLERANCE = (1e-6, 0.0)
RESIZED = (5e-6, 0.0)  # sums of 16 products


def cases(folder: pathlib.Path) -> Iterator[tuple[str, Iterator[Quantity]]]:
    """One case per file."""
    for path in sorted(folder.iterdir()):
        if path.suffix == ".safetensors":
            yield path.stem, check(path)
        else:
            yield path.name, quantities.unknown(["(file)"])


def check(path: pathlib.Path) -> Iterator[Quantity]:
    """Every table of a file."""
    for name, expected in quantities.load(path).items():
        found = table(name, expected.ndim)
        if found is None:
            yield from quantities.unknown([name])
        else:
            tolerance = RESIZED if "->" in name else TOLERANCE
            yield Quantity(name, found[None], expected, tolerance)


def table(name: str, rank: int) -> np.ndarray | None:
    """The table that a recorded name asks for, without batch axis; None for an unknown name."""
    kind, _, shape = name.partition("/")
    if not re.fullmatch(r"\d+(x\d+)*(->\d+x\d+)?", shape):
        return None
    nominal, actual = (
        [int(n) for n in part.split("x") if n] for part in shape.partition("->")[::2]
    )
    match kind, len(nominal), len(actual):
        case "1d", 2, 0:
            return np.asarray(posemb.sincos_1d(*nominal))
        case ("2d", 3, 0) | ("vit_2d", 3, 0) if rank == 3:
            return np.asarray(posemb.sincos_2d(*nominal, as_published=True))
        case ("vit_2d", 3, 0) | ("bicubic", 3, 2):
            rows, columns, dim = nominal
            size = (actual[0], actual[1]) if actual else (rows, columns)
            return np.moveaxis(np.asarray(vit.position_table((rows, columns), size, dim)), -1, 0)
    return None
