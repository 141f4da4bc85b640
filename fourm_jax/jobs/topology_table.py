"""The table of published sizes on slices of TPUs: which cases there are, what is tried, its text.

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
SIZES = ("xlarge", "base", "large")
MIXES = ("mod21", "mod7")
PARTS = (2, 4, 8)  # that the samples of a step are computed in, one after the other
GIB = 2**30
# What stands in a page around the table.
MARKS = ("<!-- table of topologies -->", "<!-- end of the table of topologies -->")

Row = Mapping[str, Any]


def cases(wanted: Sequence[str] = ()) -> list[str]:
    """Names MIX/SIZE/SLICE; all, or those with one of the strings of `wanted` in them."""
    names = [f"{mix}/{size}/{place}" for mix in MIXES for size in SIZES for place in SLICES]
    return [name for name in names if not wanted or any(part in name for part in wanted)]


def settings(case: str, changes: Iterable[str] = ()) -> list[str]:
    """Flags of `experiments.compile_topology` for one case.

    Parameters are cut along the last axis of the slice, the batch also along the others: a TPU
    scatters gradients along one axis of its network, and sums them whole over several.
    """
    mix, size, place = case.split("/")
    *others, last = map(int, place.partition(":")[2].split("x"))
    mesh = {"data": math.prod(others), "fsdp": last}
    return [
        f"--topology={place}",
        f"--config=configs/fourm.py:mix={mix},size={size}",
        *(f"--config.mesh.{axis}={parts}" for axis, parts in mesh.items()),
        *(f"--config.{change}" for change in changes),
    ]


def next_changes(row: Row) -> list[str] | None:
    """Changes that save memory, to try after a row that does not fit; None: there are no more.

    First blocks keep their inputs alone, then a step is computed in parts. Memory falls at most in
    proportion to these, so that a number of parts that cannot be enough is left out.
    """
    full = "model.remat=full"
    if row["remat"] != "full":
        return [full]
    for parts in PARTS:
        least = row["bytes"] * row["accumulate_steps"] / parts
        if parts > row["accumulate_steps"] and least <= row["memory_bytes"]:
            return [full, f"optimizer.accumulate_steps={parts}"]
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
    """The table for a page: one line per case, its last try, and what did not fit before."""
    lines = [
        "| model, batch | slice, data × fsdp | `remat`, parts | needs, GiB | arguments | "
        "temporaries | sent per step, GB | least of fsdp | compiled in |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for case in cases():
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
    return f"`{row['remat']}`" + (f", {parts} parts" if parts > 1 else "")


def into_page(text: str, rows: Sequence[Row]) -> str:
    """The text of a page with the table of `rows` between its marks.

    Raises:
      ValueError: the page has no such marks.
    """
    start, end = map(re.escape, MARKS)
    found = re.search(f"({start}\n).*?({end})", text, re.DOTALL)
    if found is None:
        raise ValueError(f"the page lacks the lines {MARKS[0]} and {MARKS[1]}")
    table = found[1] + "\n" + markdown(rows) + "\n" + found[2]
    return text[: found.start()] + table + text[found.end() :]
