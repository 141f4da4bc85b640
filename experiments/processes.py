"""Flags of the commands that run as several processes, and how these find each other.

Some compute together (train, evaluate), others divide their work (generate, build_data,
import_webdataset, tokenize_dataset). All take the same flags or environment.
"""

import os

from absl import flags

flags.disclaim_key_flags()  # they belong to the command that calls `define`


def define() -> None:
    """Define the flags that `start` and `share` read."""
    flags.DEFINE_integer("process_id", None, "Number of this process, from 0.", lower_bound=0)
    flags.DEFINE_integer("process_count", None, "How many processes there are.", lower_bound=1)
    flags.DEFINE_string("coordinator", None, "host:port of process 0; also the next port.")
    flags.DEFINE_bool("cluster", False, "Find the others as Cloud TPU, SLURM, … name them.")


def start() -> None:
    """Join the other processes, if there are any; see `distributed.start`."""
    from fourm_jax.parallel import distributed  # jax, after `cli.set_environment`

    values = flags.FLAGS
    distributed.start(
        cluster=values.cluster,
        coordinator=values.coordinator,
        process_id=values.process_id,
        process_count=values.process_count,
    )


def share() -> dict[str, int]:
    """Which share of a job this process does: `process_index` and `process_count` of `ShardJob`.

    With a coordinator (or --cluster) the processes join, so that one that dies ends the others with
    its number, and all end together. Its number and their count alone are enough, too: then they
    never meet.
    """
    from fourm_jax.parallel import distributed

    values = flags.FLAGS
    index, count = values.process_id, values.process_count
    is_unsaid = index is None and count is None
    if (
        values.cluster
        or values.coordinator
        or (is_unsaid and distributed.COORDINATOR in os.environ)
    ):
        import jax

        start()
        return {"process_index": jax.process_index(), "process_count": jax.process_count()}
    if is_unsaid:
        index = distributed.number(distributed.PROCESS_ID, "0")
        count = distributed.number(distributed.PROCESS_COUNT, "1")
    if index is None or count is None or index >= count:
        raise ValueError(
            f"--process_id={index} --process_count={count}: expected both, the first one smaller"
        )
    return {"process_index": index, "process_count": count}
