"""The tables of published sizes on TPUs and GPUs: which cases there are, what is tried, their text.

One row is one report of `train.ahead`, with the name of its case and the changes to its config.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from etils import epath

from fourm_jax.utils import io

# The most asked for come first.
SLICES = ("v5e:16x16", "v5e:8x8", "v5e:4x4", "v5p:4x4x4", "v6e:8x8", "v6e:16x16")
GPUS = ("gpu:1xh200", "gpu:8xh100", "gpu:1xh100")
SIZES = ("xlarge", "base", "large")
MIXES = ("mod21", "mod7")
PER_GPU = {"base": 256, "large": 128, "xlarge": 64}  # samples, of mod21: those that were measured
# What waits for the backward pass, compared on the first of `GPUS`.
POLICIES = ("none", "names", "dots", "full", "offload")
POLICY_SIZES = ("base", "xlarge")
PARTS = (2, 4, 8)  # that the samples of a step are computed in, one after the other
GIB = 2**30
# What stands in a page around the table.
MARKS = ("<!-- table of topologies -->", "<!-- end of the table of topologies -->")
GPU_MARKS = ("<!-- table of GPUs -->", "<!-- end of the table of GPUs -->")

Row = Mapping[str, Any]


def cases(wanted: Sequence[str] = ()) -> list[str]:
    """Names MIX/SIZE/SLICE or MIX/SIZE/GPUS; all, or those with one of `wanted` in them."""
    names = [f"{mix}/{size}/{place}" for mix in MIXES for size in SIZES for place in SLICES]
    names += [f"mod21/{size}/{place}" for place in GPUS for size in SIZES]
    return [name for name in names if not wanted or any(part in name for part in wanted)]


def policies(wanted: Sequence[str] = ()) -> list[tuple[str, list[str]]]:
    """Cases with the changes that compare what waits for the backward pass."""
    compared = [name for name in cases(wanted) if is_gpu(name) and name.endswith(GPUS[0])]
    return [
        (name, [f"model.remat={policy}"])
        for name in compared
        if name.split("/")[1] in POLICY_SIZES
        for policy in POLICIES
    ]


def is_gpu(case: str) -> bool:
    """Whether a case is one of GPUs."""
    return "/gpu:" in case


def settings(case: str, changes: Iterable[str] = ()) -> list[str]:
    """Flags of `experiments.compile_topology` for one case.

    Parameters are cut along the last axis of the slice, the batch also along the others: a TPU
    scatters gradients along one axis of its network, and sums them whole over several. GPUs of one
    host cut parameters over all of them; each has the samples that were measured on one.
    """
    mix, size, place = case.split("/")
    config = []
    if is_gpu(case):
        count = int(re.findall(r"\d+", place)[0])
        mesh = {"data": 1, "fsdp": count}
        config = [f"batch_size={count * PER_GPU[size]}", "model.remat=names"]
    else:
        *others, last = map(int, place.partition(":")[2].split("x"))
        mesh = {"data": math.prod(others), "fsdp": last}
    return [
        f"--topology={place}",
        f"--config=configs/fourm.py:mix={mix},size={size}",
        *(f"--config.mesh.{axis}={parts}" for axis, parts in mesh.items()),
        *(f"--config.{change}" for change in (*config, *changes)),
    ]


def next_changes(row: Row) -> list[str] | None:
    """Changes that save memory, to try after a row that does not fit; None: there are no more.

    First blocks keep their inputs alone, then a step is computed in parts. Memory falls at most in
    proportion to these, so that a number of parts that cannot be enough is left out.
    """
    if row["remat"] != "full":
        return ["model.remat=full"]
    for parts in PARTS:
        least = row["bytes"] * row["accumulate_steps"] / parts
        if parts > row["accumulate_steps"] and least <= row["memory_bytes"]:
            return ["model.remat=full", f"optimizer.accumulate_steps={parts}"]
    return None


def find(rows: Iterable[Row], case: str, changes: Sequence[str]) -> Row | None:
    """The row of a case with these changes, if it is there."""
    return next((r for r in rows if (r["case"], r["changes"]) == (case, list(changes))), None)


def read(path: epath.Path) -> list[dict[str, Any]]:
    """Rows of a file of JSON lines; none where there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def write(path: epath.Path, rows: Iterable[Row]) -> None:
    """Write the whole file at once."""
    io.write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def markdown(rows: Sequence[Row]) -> str:
    """The table of TPUs: one line per case, its last try, and what did not fit before."""
    lines = [
        "| model, batch | slice, data × fsdp | `remat`, blocks, parts | needs, GiB | arguments | "
        "temporaries | sent per step, GB | least of fsdp | compiled in |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for case in cases():
        if is_gpu(case):
            continue
        tries = [row for row in rows if row["case"] == case]
        if tries:
            lines.append(_line(case, tries))
    return "\n".join(lines) + "\n"


def _line(case: str, tries: Sequence[Row]) -> str:
    last = tries[-1]
    mix, size, place = case.split("/")
    refused = [f"{_how(row)}: {row['bytes'] / GIB:.1f}" for row in tries if not row["fits"]]
    limit = f"of {last['memory_bytes'] / GIB:.4g}"
    needs = f"**{last['bytes'] / GIB:.1f}** {limit}" if last["fits"] else f"too much {limit}"
    cells = [
        f"{mix} {size}, {last['batch_size']:,}",
        f"{place}, {last['mesh']['data']} × {last['mesh']['fsdp']}",
        _how(last) if last["fits"] else "",
        f"{needs} ({'; '.join(refused)})" if refused else needs,
    ]
    if last["fits"]:
        cells += [f"{last[f'{name}_bytes'] / GIB:.1f}" for name in ("argument", "temporary")]
        cells += [f"{last[name] / 1e9:.1f}" for name in ("wire_bytes", "wire_bytes_of_fsdp")]
    else:
        cells += [""] * 4
    return "| " + " | ".join([*cells, f"{last['compile_s']:.0f} s"]) + " |"


def _how(row: Row) -> str:
    parts = row["accumulate_steps"]
    loop = ", loop" if row["scan_unroll"] == 1 else ""
    return f"`{row['remat']}`{loop}" + (f", {parts} parts" if parts > 1 else "")


def gpu_markdown(rows: Iterable[Row]) -> str:
    """The table of GPUs: one line per row of the file, equal ones once."""
    lines = [
        "| model, batch per GPU | GPUs | `remat`, blocks | needs, GiB | arguments | temporaries | "
        "host | kernels at least, ms | products of these | sending, ms | sent per step, GB |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += dict.fromkeys(_gpu_line(row) for row in rows if is_gpu(row["case"]))
    return "\n".join(lines) + "\n"


def _gpu_line(row: Row) -> str:
    mix, size, place = row["case"].split("/")
    count, name = place.removeprefix("gpu:").split("x", 1)
    needs = f"{row['bytes'] / GIB:.1f}"
    limit = f"of {row['memory_bytes'] / GIB:.1f}" + (" †" if row["setting"] else "")
    least = row["least_ms"]
    sent = least.get("collectives", {"ms": 0.0})["ms"]
    parts = [least["sum"]["ms"] - sent, least["products"]["ms"], sent]
    cells = [
        f"{mix} {size}, {row['batch_size'] // int(count)}",
        f"{count} × {name.upper()}",
        _how(row),
        f"**{needs}** {limit}" if row["fits"] else f"{needs}, too much {limit}",
        *(f"{row[f'{part}_bytes'] / GIB:.1f}" for part in ("argument", "temporary", "host")),
        *(f"{value:.0f}" for value in parts),
        f"{row['wire_bytes'] / 1e9:.1f}",
    ]
    return "| " + " | ".join(cells) + " |"


def into_page(text: str, rows: Sequence[Row]) -> str:
    """The text of a page with the tables of `rows` between their marks.

    Raises:
      ValueError: the page lacks marks.
    """
    for marks, table in ((MARKS, markdown(rows)), (GPU_MARKS, gpu_markdown(rows))):
        start, end = map(re.escape, marks)
        found = re.search(f"({start}\n).*?({end})", text, re.DOTALL)
        if found is None:
            raise ValueError(f"the page lacks the lines {marks[0]} and {marks[1]}")
        between = found[1] + "\n" + table + "\n" + found[2]
        text = text[: found.start()] + between + text[found.end() :]
    return text
