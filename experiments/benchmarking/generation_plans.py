"""Cases of the suite `generate`, planned for a device that is not here."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax

from experiments.benchmarks import generate
from fourm_jax.generate import plans, schedule
from fourm_jax.generate.grids import Sampling
from fourm_jax.parallel import topology
from fourm_jax.utils import errors, progress

SIZES = ("base", "tiny")


def names() -> dict[str, tuple[str, generate.Case]]:
    """Size and case by name: the rows that the suite has on an accelerator."""
    cases = list(generate.all_cases(on_accelerator=True))
    return {f"{size}_{case.name}": (size, case) for size in SIZES for case in cases}


def check(wanted: Sequence[str]) -> None:
    """Raise a ValueError where a case is unknown, or none is named."""
    for name in wanted or [""]:
        if name not in names():
            raise ValueError(errors.unknown_value("case", name, names()))


def run(wanted: Sequence[str], place: topology.Topology) -> Iterator[dict[str, Any]]:
    """Yield one row per case: totals, and what one call of each program takes.

    A case of several targets in one pass also has the totals of "one_by_one", an encoder pass for
    each.
    """
    for name in wanted:
        size, case = names()[name]
        yield {
            "case": name,
            "topology": place.name,
            "device": place.devices[0].device_kind,
            "batch": case.batch,
            "jax": jax.__version__,
            **row_of(size, case, place),
        }


def row_of(size: str, case: generate.Case, place: topology.Topology) -> dict[str, Any]:
    """The figures of one case."""
    model = generate.trunk(size, case.mix, platform=place.devices[0].platform)
    mesh = plans.one_device(place)
    params, pixels = generate.shapes(model), generate.pictures(case.batch)
    if case.parallel:
        groups = [case.targets, *((target,) for target in case.targets)]
        used, parts = plans.of_cast(model, params, case.batch, mesh)
        parts += [
            plans.of_prediction(model, used, generate.start(model, pixels, group), group)
            for group in groups
        ]
    else:
        steps = schedule.build_chained_schedule([generate.PICTURE], generate.plan(model, case))
        parts = plans.of_chain(
            *(model, params, generate.start(model, pixels, case.targets), steps, mesh),
            sampling=Sampling(top_p=generate.NUCLEUS),
            max_new=case.max_new,
        )
    named = progress.track(parts, label="plan", unit="program", name=lambda part: part.name)
    rows = [plans.report(part, place, mesh) for part in named]
    if not case.parallel:
        return plans.total(rows) | {"programs": rows}
    casts, (first, *single) = rows[: -len(groups)], rows[-len(groups) :]
    others = {"one_by_one": plans.total([*casts, *single])} if len(single) > 1 else {}
    return plans.total([*casts, first]) | others | {"programs": rows}
