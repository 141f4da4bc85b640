"""Plan generation on a device that is not here: kernels, bytes and memory of all its programs.

    python -m experiments.plan_generation --topology=gpu:1xh200 \
        --cases=base_depth_maskgit8_b32,base_caption64_b1

Compiles every program that a case of the suite `generate` calls, with the compiler of that device,
and prints one JSON line per case (docs/performance.md#plans-of-generation); nothing runs. GPUs need
pip install 'fourm_jax[cuda]', TPUs pip install 'fourm_jax[tpu]'. Of several devices the first one
counts.
"""

import datetime
import json
import os
import shlex

from absl import flags

from experiments import cli

# Programs of devices that are not here would be kept, but cannot be read again.
cli.set_environment(JAX_PLATFORMS="cpu", JAX_ENABLE_COMPILATION_CACHE="false")

from experiments.benchmarking import generation_plans  # noqa: E402
from fourm_jax.parallel import topology  # noqa: E402

CASES = cli.define_names(
    "cases", ["base_depth_maskgit8_b32"], "Rows of the suite `generate`, of tiny_… or base_…."
)
TOPOLOGY = flags.DEFINE_string("topology", "gpu:1xh200", "gpu:1xh200, gpu:1xh100, v5e:2x2, ….")


def main() -> None:
    """Print the rows."""
    generation_plans.check(CASES.value)
    place = topology.find(TOPOLOGY.value)
    for row in generation_plans.run(CASES.value, place):
        told = {"topology": place.name, "cases": row["case"]}
        command = ["python", "-m", "experiments.plan_generation"]
        command += [f"--{name}={value}" for name, value in told.items()]
        how = {"hardware": f"none: planned on {os.cpu_count()} CPU cores"}
        how |= {"command": shlex.join(command), "date": f"{datetime.date.today()}"}
        print(json.dumps(row | how), flush=True)


if __name__ == "__main__":
    cli.run(main)
