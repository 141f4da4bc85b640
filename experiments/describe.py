"""Print every parameter of a config: shape, layout on the mesh, bytes per device, and the sums.

    python -m experiments.describe --config=configs/fourm.py:mix=mod21,size=xlarge --num_devices=256

Nothing is computed and, for a trunk, no data are needed. What a step needs beside the state says
`experiments.compile_topology`.
"""

import contextlib

from absl import flags
from ml_collections import config_flags

from experiments import cli

cli.set_environment(JAX_PLATFORMS="cpu")

import jax  # noqa: E402

from fourm_jax.parallel import distributed  # noqa: E402
from fourm_jax.parallel import mesh as mesh_lib  # noqa: E402
from fourm_jax.train import overview, run_config  # noqa: E402
from fourm_jax.train import program as program_lib  # noqa: E402
from fourm_jax.utils import progress  # noqa: E402

CONFIG = config_flags.DEFINE_config_file("config", None, "Config of a training.")
NUM_DEVICES = flags.DEFINE_integer("num_devices", 1, "Devices of the mesh.", lower_bound=1)


def main() -> None:
    """Print the table."""
    config = CONFIG.value
    task = run_config.make_task(config)
    jax.config.update("jax_num_cpu_devices", NUM_DEVICES.value)
    mesh = mesh_lib.make_mesh(**config.mesh.to_dict())
    if config.task == "fourm":
        example = run_config.abstract_batch(config, mesh)
    else:  # what a record holds is known from the data alone
        with contextlib.closing(run_config.build(config).batches(0, ahead=False)) as batches:
            example = distributed.put_batch(next(batches), mesh)
    abstract = program_lib.make(config, task, mesh, example).abstract
    progress.announce(overview.table(abstract))


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    cli.run(main)
