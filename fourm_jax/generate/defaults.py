"""How a target is generated where nobody says how: one entry per role of a target.

Python, command, gallery and report use this table and no other. Its values are those that measure
best on 256 held-out scenes of the quickstart's model (docs/results.md#defaults-of-generation).
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from fourm_jax.generate.schedule import Target
from fourm_jax.modalities.spec import ModalitySpec

# text: the most likely token, without guidance, which makes texts run on.
# vector: one pass.
# map: what the conditions settle, so that the most likely token is best; continuous ones are
#   decoded from the average of their codes.
# picture: hot and guided at first, cold at the end: whole surfaces, few stray tokens.
DEFAULTS: Mapping[str, Target] = {
    "text": Target(name="", scheme="autoregressive", temperature=0.0),
    "vector": Target(name="", scheme="roar", temperature=0.0),
    "map": Target(name="", scheme="maskgit", tokens="cosine", temperature=0.0),
    "picture": Target(
        name="",
        scheme="maskgit",
        num_steps=16,
        tokens="cosine",
        temperature=3.0,
        temperatures="onex:0.5:0.5",
        guidance=3.0,
        top_p=0.8,
    ),
}


def role(spec: ModalitySpec, specs: Iterable[ModalitySpec]) -> str:
    """What a target is for the table: "text", "vector", "picture" or "map".

    A picture is a grid of the record field that a pixel modality of the same model shows.
    """
    if spec.kind == "sequence":
        return "text"
    if spec.kind == "global":
        return "vector"
    shown = {other.source for other in specs if other.kind == "pixels" and other.source}
    return "picture" if spec.source in shown else "map"


def target(
    spec: ModalitySpec, specs: Iterable[ModalitySpec], num_open: int, **changes: Any
) -> Target:
    """How one modality is generated where the table, or `changes`, say how.

    Args:
      num_open: positions of a grid or vector that are not known.
      changes: fields of `Target` that differ from the table; None: as in the table. Texts and
        vectors have no `num_steps` to change.
    """
    kind = role(spec, specs)
    if kind in ("text", "vector"):
        changes = {**changes, "num_steps": None}
    given = {name: value for name, value in changes.items() if value is not None}
    chosen = dataclasses.replace(DEFAULTS[kind], name=spec.name, **given)
    if kind == "text":
        return chosen
    num_steps = max(min(chosen.num_steps, num_open), 1)
    return dataclasses.replace(chosen, num_tokens=num_open, num_steps=num_steps)
