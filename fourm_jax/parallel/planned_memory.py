"""What a program compiled for devices that are not here needs of their memory: does it fit?"""

import dataclasses
import re
from typing import Any

import jax

from fourm_jax.parallel import gpus, topology
from fourm_jax.utils import device_memory

# "Used 18.5G of 15.75G hbm", or "HLO temporaries (34.88G) exceeds available HBM (15.75G)"
_USED = re.compile(
    r"([\d.]+)([KMGT])\)? (?:of|exceeds available HBM) \(?([\d.]+)([KMGT])", re.IGNORECASE
)
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TooLarge:
    """A program that the compiler refuses: bytes that it would need and that there are, per
    device."""

    num_bytes: int
    limit: int


def compile_lowered(lowered: jax.stages.Lowered) -> jax.stages.Compiled | TooLarge:
    """The compiled program, or what the compiler says where it refuses it for its memory."""
    try:
        return lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        found = too_large(str(error))
        if found is None:
            raise
        return found


def too_large(message: str) -> TooLarge | None:
    """What the compiler says about memory; None where it complains about something else."""
    found = _USED.search(message)
    if "RESOURCE_EXHAUSTED" not in message or found is None:
        return None
    used, used_unit, limit, limit_unit = found.groups()
    return TooLarge(
        num_bytes=round(float(used) * _UNITS[used_unit]),
        limit=round(float(limit) * _UNITS[limit_unit]),
    )


def report(compiled: Any, place: topology.Topology) -> dict[str, Any]:
    """Bytes of a compiled program or a `TooLarge`, per device; "fits" says whether they are there.

    "setting" is what the environment must say for a GPU to give as much.
    """
    if isinstance(compiled, TooLarge):
        over = compiled.num_bytes - compiled.limit
        refused = {"memory_bytes": compiled.limit, "fits": False, "bytes": compiled.num_bytes}
        return refused | {"bytes_over": over}
    found = compiled.memory_analysis()
    parts = {
        "argument_bytes": found.argument_size_in_bytes,
        "temporary_bytes": found.temp_size_in_bytes,
        "output_bytes": found.output_size_in_bytes - found.alias_size_in_bytes,
        "code_bytes": found.generated_code_size_in_bytes,
    }
    peak = getattr(found, "peak_memory_in_bytes", 0)
    row = {"peak_bytes": peak, **parts}
    if place.gpu is not None:
        row["host_bytes"] = found.host_temp_size_in_bytes  # of `offload`
        return fits(sum(parts.values()), place.gpu) | row
    # The sum counts twice what temporaries share; most at once is known from newer compilers alone.
    needed = peak + parts["code_bytes"] if peak else sum(parts.values())
    return {"fits": True, "bytes": needed, **row}  # else the compiler would have said so


def fits(needed: int, gpu: gpus.Gpu) -> dict[str, Any]:
    """Whether a GPU has `needed` bytes: its compiler refuses nothing.

    All temporaries are one allocation, so that the sum counts and not the peak.
    """
    over = needed - gpu.memory_bytes
    large = needed > device_memory.USUAL_SHARE * gpu.total_bytes
    row = {
        "fits": over <= 0,
        "bytes": needed,
        "setting": device_memory.LARGE_SETTING if large else "",
    }
    return row | {"bytes_over": over} if over > 0 else row
