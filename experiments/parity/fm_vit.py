"""fm_vit/: features of the encoder alone, with the weights of a trunk of fm/."""

import json
import pathlib
import re
from collections.abc import Iterator

import jax
import numpy as np

from experiments.parity import fm
from experiments.parity import quantity as quantities
from experiments.parity.quantity import Quantity, Recorded
from fourm_jax.convert import fourm
from fourm_jax.models import fourm_vit


def cases(folder: pathlib.Path) -> Iterator[tuple[str, Iterator[Quantity]]]:
    """One case per .safetensors file, described by the .json file beside it."""
    return quantities.described_cases(folder, check)


def check(path: pathlib.Path) -> Iterator[Quantity]:
    """Features of the images that the .json file names."""
    expected = Recorded(quantities.load(path))
    meta = json.loads(path.with_suffix(".json").read_text())
    trunk = path.parents[1] / "fm" / meta["fm_case"]
    model, params = fourm.load(trunk, overrides=fm.read_overrides(trunk))
    (name,) = re.findall(r"'([^']+)/tensor'", meta["input"])
    images = quantities.load(trunk / "inputs.safetensors")[f"{name}/tensor"]
    vit, chosen = fourm_vit.from_fourm(model, params, name)
    features = expected["features"]
    pixels = np.moveaxis(images[: len(features)], 1, -1)
    found = jax.jit(vit.apply)({"params": chosen}, pixels)
    yield Quantity("features", found, features)
    yield from expected.unread()
