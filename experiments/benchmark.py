"""Measure speed and memory; one JSON line per case.

    python -m experiments.benchmark --suite=masking

Suites: masking (device-side masking per sample), pipeline (host records per second), published
(memory and speed of 4M-21 B, XL and the ViT-B tokenizer), scenes (rendered scenes per second),
trunk (training steps of configs/scenes.py). Run on an idle machine; each line carries the load
average and, where there is one, a yardstick measured in the same run.
"""

import importlib
import json
import os
import pathlib

from absl import flags

from experiments import cli

cli.set_environment(XLA_FLAGS="--xla_force_host_platform_device_count=2")

from fourm_jax.utils import errors  # noqa: E402

SUITES = sorted(
    path.stem
    for path in (pathlib.Path(__file__).parent / "benchmarks").glob("*.py")
    if path.stem != "__init__"
)
SUITE = flags.DEFINE_string("suite", None, f"One of {', '.join(SUITES)}.", required=True)


def main() -> None:
    """Run one suite."""
    if SUITE.value not in SUITES:
        raise ValueError(errors.unknown_value("suite", SUITE.value, SUITES))
    for case in importlib.import_module(f"experiments.benchmarks.{SUITE.value}").run():
        print(json.dumps({**case, "load_average": round(os.getloadavg()[0], 2)}), flush=True)


if __name__ == "__main__":
    cli.run(main)
