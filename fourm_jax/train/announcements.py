"""What a run says of itself: what is trained, on what, from where."""

from typing import Any

import jax
import ml_collections
from jax.sharding import Mesh

from fourm_jax.train import program as program_lib
from fourm_jax.utils import progress, tree


def label(config: ml_collections.ConfigDict) -> str:
    """What is trained, for people."""
    if config.task == "tokenizer":
        return f"tokenizer {config.tokenizer.name}"
    return "transfer" if config.task == "transfer" else "trunk"


def of_start(
    config: ml_collections.ConfigDict,
    program: program_lib.Program,
    mesh: Mesh,
    start: int,
    example: Any,
) -> None:
    """Say what is trained from step `start` on, and whether a batch does not divide."""
    count = tree.num_elements(program.abstract.params)
    device = mesh.devices.flat[0]
    axes = " × ".join(f"{name} {size}" for name, size in mesh.shape.items())
    where = f"{mesh.size} {device.device_kind} device(s)" + (f" ({axes})" if mesh.size > 1 else "")
    origin = f"resuming at step {start:,} of" if start else "steps:"
    say(
        f"{label(config)}: {count:,} parameters on {where}, batch {config.batch_size}, "
        f"{origin} {config.num_steps:,}"
    )
    records = jax.tree.leaves(example)[0]
    if mesh.size > mesh.shape["tensor"] and records.sharding.is_fully_replicated:
        say(
            f"note: {len(records)} records per batch do not divide over the mesh ({axes}), so "
            "every device computes all of them; a multiple of data × fsdp is faster"
        )


def say(message: str) -> None:
    """Say it once, however many processes there are."""
    if jax.process_index() == 0:
        progress.announce(message)
