"""Held-out records of a run as fields of the page."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from etils import epath
from jaxtyping import UInt8

from fourm_jax.demo import forms, typed
from fourm_jax.generate.generator import Generator
from fourm_jax.jobs.requests import held_out_record


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """A record: its picture, and its texts as they are typed."""

    picture: UInt8[np.ndarray, "h w 3"]
    texts: Mapping[str, str]


def read(generator: Generator, source: epath.Path, count: int) -> list[Example]:
    """The first held-out records; none where the source holds none, or no pictures."""
    found: list[Example] = []
    pixels = forms.pixels_of(generator)
    if pixels is None:
        return found
    for number in range(count):
        try:
            record = held_out_record(source, number)
        except ValueError:  # a checkpoint has no records, and a small run few
            break
        specs = [generator.spec(name) for name in forms.texts_of(generator)]
        texts = {s.name: typed.write(record[s.source], s) for s in specs if s.source in record}
        found.append(Example(picture=np.asarray(record[pixels.source]), texts=texts))
    return found
