"""Measure speed and memory; one JSON line per case.

    python -m experiments.benchmark --suite=train
    python -m experiments.benchmark --suite=train --cases=tiny_mod7 --compare=before.jsonl --profile
    python -m experiments.benchmark --suite=train --changes=model.scan_unroll=24

Suites: train (steps of the published trunks), remat (what each value of model.remat keeps and
computes again; runs nothing), generate (chains on one picture), diffusion (what few steps of a
DiVAE cost), kernels (attention, norm and gate of one layer, by each implementation), masking
(device-side masking per sample), pipeline (host records per second), published (memory and speed of
4M-21 B, XL and the ViT-B tokenizer), scenes (rendered scenes per second), trunk (training steps of
configs/scenes.py). Run on an idle machine; each line carries the load average and, where there is
one, a yardstick measured in the same run.
"""

import inspect
import json
import os
from typing import Any

from absl import flags

from experiments import cli

cli.set_environment(
    XLA_FLAGS="--xla_force_host_platform_device_count=2",
    XLA_PYTHON_CLIENT_MEM_FRACTION=".92",  # of a GPU; .75 without, too little for "xlarge"
)

from experiments import benchmarks  # noqa: E402
from experiments.benchmarking import comparison, turns  # noqa: E402
from fourm_jax.utils import modules  # noqa: E402

SUITE = flags.DEFINE_string("suite", None, "A file of experiments/benchmarks.", required=True)
CASES = cli.define_names("cases", [], "Cases of the suite; default: all that fit this machine.")
COMPARE = flags.DEFINE_string("compare", None, "Earlier output; prints ratios against it.")
PROFILE = flags.DEFINE_bool("profile", False, "Write a trace and print the time by kind of kernel.")
CHANGES = cli.define_names("changes", [], "Config keys that differ in all cases: key=value,….")
LOOP = flags.DEFINE_bool("loop", True, "On accelerators, also train for 60 steps as a run does.")
TURNS = flags.DEFINE_string(
    "turns",
    "",
    "A folder: benchmarks that name the same one compile at once and, once all have, measure in "
    "turns.",
)


def main() -> None:
    """Run one suite."""
    suite = modules.get(benchmarks, "run", SUITE.value, "suite")
    options = {"cases": tuple(CASES.value), "profile": PROFILE.value, "turns": TURNS.value}
    options["changes"] = dict(map(_parse_change, CHANGES.value))
    options = {name: value for name, value in options.items() if value}
    options |= {} if LOOP.value else {"loop": False}
    for name in options:
        if name not in inspect.signature(suite.run).parameters:
            raise ValueError(f"suite {SUITE.value!r} has no option --{name}")
    earlier = comparison.read(COMPARE.value) if COMPARE.value else {}
    turns.enter(TURNS.value)
    for case in suite.run(**options):
        row = {**case, "load_average": round(os.getloadavg()[0], 2)}
        print(json.dumps(row), flush=True)
        for line in comparison.ratios(row, earlier):
            print(f"  {line}", flush=True)


def _parse_change(text: str) -> tuple[str, Any]:
    """A key and its value, as JSON or as text; whether both fit is checked by the config."""
    key, _, value = text.partition("=")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


if __name__ == "__main__":
    cli.run(main)
