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

# Of a draft, which is drawn and not the most likely one: pictures of one caption differ in it.
# A map is guided: without it the ground, likely everywhere, spreads over small objects, and 6 % of
# the pictures show none.
DRAFTS: Mapping[str, Target] = {
    "text": Target(name="", scheme="autoregressive", temperature=0.7, top_p=0.9),
    "map": Target(
        name="",
        scheme="maskgit",
        num_steps=8,
        tokens="cosine",
        temperature=0.7,
        guidance=2.0,
        top_p=0.9,
    ),
}
# Of what is painted over its drafts, which leave little to decide: the most likely tokens keep to
# their outlines, where drawn ones scatter.
PAINTED: Mapping[str, Target] = {
    "picture": Target(name="", scheme="maskgit", num_steps=4, tokens="cosine", temperature=0.0),
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


def drafts(spec: ModalitySpec, given: Iterable[ModalitySpec]) -> tuple[str, ...]:
    """What is generated before a target where only texts are given (`ModalitySpec.drafts`)."""
    given = tuple(given)
    if not given or any(other.kind != "sequence" for other in given):
        return ()
    return tuple(name for name in spec.drafts if name not in {other.name for other in given})


def is_one_pass(spec: ModalitySpec, specs: Iterable[ModalitySpec]) -> bool:
    """Whether the default is the most likely token of one pass without guidance."""
    one = DEFAULTS[role(spec, specs)]
    parallel = spec.kind != "sequence"
    return parallel and one.num_steps == 1 and one.temperature == 0 and one.guidance == 1


def target(
    spec: ModalitySpec,
    specs: Iterable[ModalitySpec],
    num_open: int,
    table: Mapping[str, Target] = DEFAULTS,
    **changes: Any,
) -> Target:
    """How one modality is generated where the table, or `changes`, say how.

    Args:
      num_open: positions of a grid or vector that are not known.
      table: by role, what differs from `DEFAULTS`.
      changes: fields of `Target` that differ from the table; None: as in the table. Texts and
        vectors have no `num_steps` to change.
    """
    kind = role(spec, specs)
    if kind in ("text", "vector"):
        changes = {**changes, "num_steps": None}
    given = {name: value for name, value in changes.items() if value is not None}
    chosen = dataclasses.replace(table.get(kind, DEFAULTS[kind]), name=spec.name, **given)
    if kind == "text":
        return chosen
    num_steps = max(min(chosen.num_steps, num_open), 1)
    return dataclasses.replace(chosen, num_tokens=num_open, num_steps=num_steps)
