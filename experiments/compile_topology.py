"""Compile the train step for a slice that is not here: does it fit, and what does it send?

    python -m experiments.compile_topology --config=configs/fourm.py:mix=mod21,size=xlarge \
        --topology=v5e:16x16

Prints one JSON line (docs/howto/several-hosts.md#before-a-chip-is-rented); ends with status 1 where
the step does not fit. --search=batch finds the largest batch that does. --topology=gpu:8xh100 is a
host with eight GPUs (also a100, h200; of several hosts gpu:8xh100*2). Nothing runs: TPUs need their
compiler, pip install 'fourm_jax[tpu]', GPUs theirs, pip install 'fourm_jax[cuda]'.
"""

import json
import sys

from absl import flags
from ml_collections import config_flags

from experiments import cli

cli.set_environment(JAX_PLATFORMS="cpu")

from fourm_jax.parallel import topology  # noqa: E402
from fourm_jax.train import ahead  # noqa: E402

CONFIG = config_flags.DEFINE_config_file("config", None, "Config of a trunk.")
TOPOLOGY = flags.DEFINE_string(
    "topology", None, "v5e:16x16, v5p:4x4x4, …, or gpu:8xh100, gpu:1xh200.", required=True
)
SEARCH = flags.DEFINE_enum("search", "none", ("none", "batch"), "What to look for.")
TWO_LAYERS = flags.DEFINE_bool("two_layers", True, "Also count a step of two layers, on TPUs.")


def main() -> None:
    """Print the report."""
    place, config = topology.find(TOPOLOGY.value), CONFIG.value
    if SEARCH.value == "batch":
        row = ahead.largest_batch(config, place, lambda line: print(line, file=sys.stderr))
    else:
        row = ahead.report(config, place)
    if TWO_LAYERS.value and row["fits"] and place.gpu is None:
        row["two_layers"] = ahead.two_layers(config, place)
    if row["fits"] and row.get("setting"):
        print(f"fits with {row['setting']} alone", file=sys.stderr)
    print(json.dumps(row), flush=True)
    if not row["fits"]:
        sys.exit(f"error: does not fit: {row['bytes_over']:,} bytes over on every device")


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    cli.run(main)
