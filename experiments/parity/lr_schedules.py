"""lr_schedules/: tables of learning rates."""

import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from experiments.parity import quantity as quantities
from experiments.parity.quantity import Quantity
from fourm_jax.train import schedules

NAMES = {
    "cosine_scheduler": "cosine",
    "constant_scheduler": "constant",
    "inverse_sqrt_scheduler": "inverse_sqrt",
}
ARGUMENTS = (
    "base_value",
    "final_value",
    "epochs",
    "niter_per_ep",
    "warmup_epochs",
    "warmup_steps",
    "start_warmup_value",
    "cooldown_epochs",
    "cooldown_steps",
    "timescale",
)
TOLERANCE = (1e-9, 2e-6)


def cases(folder: pathlib.Path) -> Iterator[tuple[str, Iterator[Quantity]]]:
    """One case per entry of each file."""
    for path in sorted(folder.iterdir()):
        if path.suffix != ".json":
            yield path.name, quantities.unknown(["(file)"])
            continue
        for number, entry in enumerate(json.loads(path.read_text())):
            yield f"{entry['function']}-{number}", check(entry)


def check(case: Mapping[str, Any]) -> Iterator[Quantity]:
    """All rates of one schedule."""
    args = case["args"]
    unknown = [name for name in args if name not in ARGUMENTS]
    unknown += [name for name in case if name not in ("function", "args", "values")]
    if unknown or case["function"] not in NAMES:
        yield from quantities.unknown(unknown or ["values"])
        return
    per_epoch = args["niter_per_ep"]
    schedule = schedules.make(
        NAMES[case["function"]],
        lr=args["base_value"],
        min_lr=args.get("final_value", 0.0),
        num_steps=args["epochs"] * per_epoch,
        warmup_steps=_steps(args, "warmup"),
        cooldown_steps=_steps(args, "cooldown"),
        timescale=args.get("timescale", 10_000),
    )
    steps = jnp.arange(len(case["values"]))
    found = jax.vmap(schedule)(steps)
    # Upstream can start its warm-up above 0, which no published run does.
    start = args.get("start_warmup_value", 0.0)
    risen = start + found * (1 - start / args["base_value"])
    found = jnp.where(steps < _steps(args, "warmup"), risen, found)
    yield Quantity("values", found, case["values"], TOLERANCE)


def _steps(args: Mapping[str, Any], phase: str) -> int:
    """Steps of a phase, given in steps (unless negative, as upstream's default) or in epochs."""
    steps = args.get(f"{phase}_steps", -1)
    return steps if steps >= 0 else args.get(f"{phase}_epochs", 0) * args["niter_per_ep"]
