"""Programs of generation, compiled for a device that is not here: what they need, move and start.

What `train.ahead` says of a training step. A chain is many programs and calls of them; those of one
kind of call are a `Part`.
"""

import collections
import dataclasses
import functools
import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from fourm_jax.generate import ahead, buckets, chain, parallel, trunk
from fourm_jax.generate.grids import GridStage, Sampling
from fourm_jax.generate.schedule import Step
from fourm_jax.generate.sequences import SequenceStage
from fourm_jax.generate.stages import Call
from fourm_jax.generate.state import State, Widths
from fourm_jax.models.fourm import FourM
from fourm_jax.parallel import (
    gpu_kernels,
    hlo,
    planned_memory,
    roofline,
    topology,
    tpu_cycles,
)
from fourm_jax.parallel import mesh as mesh_lib

START_US = 2.5  # that starting a kernel is taken to cost where a plan adds up times


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """One program, and how it is called.

    Attributes:
      name: of the target, "cast" for the kernels of all blocks, "predict" for several targets.
      call: one of its calls.
      num_calls: how many there are; 0 for what is called once and kept, "cast".
      num_tokens: that a call writes one after the other, each of them a round of a loop; 1 where
        there is no such loop.
      slots: of encoder and decoder, those of a text one by one.
    """

    name: str
    call: Call
    num_calls: int = 1
    num_tokens: int = 1
    slots: tuple[int, int] = (0, 0)


def one_device(place: topology.Topology) -> Mesh:
    """The mesh that programs are planned under: the first device alone."""
    return mesh_lib.make_mesh(data=1, devices=place.devices[:1])


def of_chain(
    model: FourM,
    params: Any,
    state: State,
    steps: Sequence[Step],
    mesh: Mesh,
    *,
    sampling: Sampling | None = None,
    max_new: Mapping[str, int] | None = None,
) -> list[Part]:
    """Programs that `chain.run` calls, in the order of their first calls.

    Every text is as long as it may be.

    Args:
      params: shapes.
      state: of devices that are here; which slots there are depends on what is known in it.
      mesh: of the device to plan for.
    """
    keys = chain.row_keys(0, np.arange(state.batch_size))
    writings = chain.plan_writings(model, state, steps, sampling, max_new=max_new)
    texts = [one.stage for one in writings if isinstance(one.stage, SequenceStage)]
    lengths = {stage.target: min(stage.max_new, stage.length) for stage in texts}
    known = buckets.known_range(state)
    used, casts = of_cast(model, params, state.batch_size, mesh)
    with jax.set_mesh(mesh):
        chained = (model, used, state, keys, writings)
        written = ahead.calls(*chained, known=known, lengths=lengths, fit_slots=True)
        calls = list(itertools.chain.from_iterable(written))
    counts = collections.Counter(call.key for call in calls)
    first = {call.key: call for call in reversed(calls)}
    return casts + [_part(first[key], counts[key]) for key in counts]


def of_cast(model: FourM, params: Any, num_samples: int, mesh: Mesh) -> tuple[Any, list[Part]]:
    """Shapes of the parameters as passes take them, and the program that makes these of others, if
    there is anything to cast: a `Generator` calls it once and keeps what it gives.

    Args:
      params: shapes.
      num_samples: that are on the device at once.
    """
    cast = jax.jit(functools.partial(trunk.with_ready_kernels, model, num_samples=num_samples))
    with jax.set_mesh(mesh):
        used = jax.eval_shape(cast, params)
    is_cast = used != _shapes(params)
    part = Part(name="cast", call=Call(cast, (params,)), num_calls=0)
    return used, [part] if is_cast else []


def of_prediction(model: FourM, params: Any, state: State, targets: Sequence[str]) -> Part:
    """The program of `generate.parallel.predict`.

    Args:
      params: shapes, of `of_cast` for those of a `Generator`.
    """
    call = parallel.prediction_call(model, params, state, targets)
    *_, asked = call.arguments
    slots = _num_slots(asked.input_widths), sum(state.ids[name].shape[1] for name in targets)
    return Part(name=targets[0] if len(targets) == 1 else "predict", call=call, slots=slots)


def _part(call: Call, num_calls: int) -> Part:
    *_, stage = call.arguments
    counted: dict[str, Any] = {"name": stage.target, "call": call, "num_calls": num_calls}
    if isinstance(stage, GridStage):
        num_inputs = max(map(_num_slots, stage.input_widths))
        return Part(**counted, slots=(num_inputs, stage.num_slots))
    return Part(**counted, num_tokens=stage.max_new, slots=(_num_slots(stage.input_widths), 1))


def _num_slots(widths: Widths) -> int:
    return sum(width for _, width in widths)


def report(part: Part, place: topology.Topology, mesh: Mesh) -> dict[str, Any]:
    """Compile a program and say what one call of it takes.

    Beside memory (`planned_memory.report`), on a GPU: "least_ms" of its kernels by kind
    (`roofline.report`), "answers" that the host waits for, and for texts what "per_token" is of it.
    On a TPU "flops" and "bytes_accessed" are the compiler's, which counts one round of a loop, and
    "cycles" what it expects, by kind (`tpu_cycles.report`).
    """
    sharding = NamedSharding(mesh, P())
    watch = time.perf_counter()
    with jax.set_mesh(mesh):
        lowered = part.call.function.lower(*_shapes(part.call.arguments, sharding))
    compiled = planned_memory.compile_lowered(lowered)
    row: dict[str, Any] = {"name": part.name, "calls": part.num_calls}
    row |= {"slots": list(part.slots)} if any(part.slots) else {}
    row |= {"tokens": part.num_tokens} if part.num_tokens > 1 else {}
    row |= {"compile_s": round(time.perf_counter() - watch, 1)}
    row |= planned_memory.report(compiled, place)
    if isinstance(compiled, planned_memory.TooLarge):
        return row
    if place.gpu is None:
        costs = compiled.cost_analysis() or {}
        numbers = {"flops": "flops", "bytes_accessed": "bytes accessed"}
        row |= {key: costs.get(name, 0.0) for key, name in numbers.items()}
        program = hlo.parse(compiled.as_text() or "")
        return row | {"cycles": tpu_cycles.report(program, open_rounds=part.num_tokens)}
    program, tokens = hlo.parse(compiled.as_text() or ""), part.num_tokens
    whole, around = (
        roofline.report(program, place.gpu, open_rounds=rounds)["least_ms"]
        for rounds in (tokens, 0)
    )
    row |= {"least_ms": whole, "answers": gpu_kernels.num_answers(program, tokens)}
    if tokens == 1:
        return row
    first, last = around["sum"], whole["sum"]
    return row | {"per_token": {key: round((last[key] - first[key]) / tokens, 4) for key in last}}


def total(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all calls of all programs take, from their reports.

    The cast of the kernels is no part of it, but "peak_bytes" counts them as they were, which stay.
    "answers_between" are those that say which slots the next target needs. On a GPU "start_ms" is
    `START_US` for each kernel; "least_ms" has none of it. On a TPU "cycles" are added up.
    """
    kept = sum(row.get("argument_bytes", 0) for row in rows if row["name"] == "cast")
    targets = {row["name"] for row in rows} - {"cast"}
    found: dict[str, Any] = {
        "num_programs": len(rows),
        "calls": sum(row["calls"] for row in rows),
        "fits": all(row["fits"] for row in rows),
        "peak_bytes": max(row["bytes"] + kept * (row["name"] != "cast") for row in rows),
        "compile_s": round(sum(row["compile_s"] for row in rows), 1),
        "answers_between": len(targets),
    }
    if all("cycles" in row for row in rows):
        cycles: dict[str, dict[str, float]] = {}
        for row in rows:
            tpu_cycles.add(cycles, row["cycles"], row["calls"])
        return found | {"cycles": cycles}
    if not all("least_ms" in row for row in rows):
        return found
    kinds: dict[str, dict[str, float]] = {}
    for row in rows:
        for kind, numbers in row["least_ms"].items():
            group = kinds.setdefault(kind, dict.fromkeys(numbers, 0))
            for key, number in numbers.items():
                group[key] = round(group[key] + row["calls"] * number, 3)
    kernels = kinds["sum"]["kernels"]
    return found | {
        "answers": sum(row["calls"] * row["answers"] for row in rows),
        "start_ms": round(kernels * START_US / 1e3, 2),
        "least_ms": dict(sorted(kinds.items(), key=lambda item: -item[1]["ms"])),
    }


def _shapes(values: Any, sharding: NamedSharding | None = None) -> Any:
    """The same with shapes in place of arrays; what is static stays."""

    def shape(leaf: Any) -> Any:
        if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
            return leaf
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(shape, values)
