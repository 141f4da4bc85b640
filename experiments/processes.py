"""Flags of the commands that run as several processes, and how these find each other."""

from absl import flags

flags.disclaim_key_flags()  # they belong to the command that calls `define`


def define(*, collective: bool) -> None:
    """Define --process_id and --process_count; if `collective`, also what `start` reads.

    Processes of a collective command compute together; others share the work and never meet.
    """
    flags.DEFINE_integer("process_id", None, "Number of this process, from 0.", lower_bound=0)
    flags.DEFINE_integer("process_count", None, "How many processes there are.", lower_bound=1)
    if collective:
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
    """Which share of a job this process does: `process_index` and `process_count` of `ShardJob`."""
    values = flags.FLAGS
    index, count = values.process_id, values.process_count
    if index is None and count is None:
        from fourm_jax.parallel import distributed

        index = distributed.number(distributed.PROCESS_ID, "0")
        count = distributed.number(distributed.PROCESS_COUNT, "1")
    if index is None or count is None or index >= count:
        raise ValueError(
            f"--process_id={index} --process_count={count}: expected both, the first one smaller"
        )
    return {"process_index": index, "process_count": count}
