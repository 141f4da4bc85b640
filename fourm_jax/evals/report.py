"""One self-contained HTML page: metrics, galleries, curves and timings, readable offline."""

import base64
import dataclasses
import html
import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath
from matplotlib.figure import Figure

from fourm_jax.evals import pictures
from fourm_jax.utils import io as file_io

STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:96em;padding:0 1em;color:#1b1f24}
h1{margin-bottom:.1em} h2{margin-top:2em;border-bottom:1px solid #d0d7de;padding-bottom:.2em}
p.note{color:#57606a;max-width:60em} table{border-collapse:collapse;margin:.8em 0}
th,td{padding:.25em .7em;text-align:left;vertical-align:top} th{font-weight:600}
table.numbers td+td,table.numbers th+th{text-align:right;font-variant-numeric:tabular-nums}
table.numbers tr:nth-child(even){background:#f6f8fa} .wide{overflow-x:auto}
table.gallery td,table.gallery th{padding:3px 4px;font-size:12px}
table.gallery td{max-width:11em;white-space:pre-line}
img.pixels{image-rendering:pixelated;display:block}
.good{color:#1a7f37}.bad{color:#b35900}
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gallery:
    """A table of pictures and texts.

    Attributes:
      title, note: heading and one or two sentences on how to read it.
      columns: headings, the first one over the row labels.
      rows: per row a label and one cell per remaining column; a cell is a uint8 picture or a text.
    """

    title: str
    note: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[np.ndarray | str]]]


def png(picture: np.ndarray) -> str:
    """Data URI of a uint8 picture [h, w, 3]."""
    return _uri(pictures.png(picture))


def figure_uri(figure: Figure) -> str:
    """Data URI of a matplotlib figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    return _uri(buffer.getvalue())


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def number(value: float) -> str:
    """Format a metric with three significant digits; "–" for what does not exist."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def gallery_html(gallery: Gallery, height: int = 120) -> str:
    """HTML of one gallery; pictures are shown `height` CSS pixels high."""
    head = "".join(f"<th>{html.escape(column)}</th>" for column in gallery.columns)
    body = []
    for label, cells in gallery.rows:
        shown = [
            f"<td>{html.escape(cell)}</td>"
            if isinstance(cell, str)
            else f'<td><img class="pixels" height="{_height(cell, height)}" src="{png(cell)}" '
            f'alt="{html.escape(column)}"></td>'
            for column, cell in zip(gallery.columns[1:], cells, strict=True)
        ]
        body.append(f"<tr><th>{html.escape(label)}</th>{''.join(shown)}</tr>")
    return (
        f"<h2>{html.escape(gallery.title)}</h2><p class=note>{html.escape(gallery.note)}</p>"
        f"<div class=wide><table class=gallery><tr>{head}</tr>{''.join(body)}</table></div>"
    )


def _height(picture: np.ndarray, height: int) -> int:
    """Legends are as wide as pictures, and keep their proportions."""
    return min(height, round(height * picture.shape[0] / picture.shape[1]))


def tasks_html(
    tasks: Mapping[str, Mapping], title: str = "Out-of-the-box metrics on held-out data"
) -> str:
    """Table of tasks: each metric beside its tokenizer bound and its constant predictor."""
    rows = [
        _task_row(name, entry)
        for name, task in tasks.items()
        for entry in (task, *task.get("also", ()))
    ]
    return (
        f"<h2>{html.escape(title)}</h2>"
        "<p class=note>No fine-tuning: the trunk generates the tokens of the target from those of "
        "the condition, with the defaults of every command; beside it, one pass of the trunk over "
        "grids and vectors. Read each number against two lines: the tokenizer bound (truth → "
        "tokens → decoded: the best that any trunk can reach with these tokenizers) and the "
        "constant predictor (per-pixel mean or majority, most frequent caption pair of the "
        "training set). What is judged by what it shows has a score of the truth too. ↑: more "
        "is better, ↓: less is.</p>"
        "<table class=numbers><tr><th>task</th><th>metric</th><th>model</th>"
        "<th>one pass</th><th>tokenizer bound</th><th>true</th><th>constant</th>"
        "<th>better than constant</th><th>n</th></tr>"
        f"{''.join(rows)}</table>"
    )


def _task_row(name: str, entry: Mapping) -> str:
    higher = entry["higher_is_better"]
    first, second = entry["model"], entry["constant"]
    better = first > second if higher else first < second  # what is no number is not
    mark = "<span class=good>yes</span>" if better else "<span class=bad>no</span>"
    numbers = "".join(
        f"<td>{number(entry.get(key, math.nan))}</td>"
        for key in ("model", "one_pass", "tokenizer_bound", "real", "constant")
    )
    unit = f" [{entry['unit']}]" if entry["unit"] else ""
    metric = f"{entry['metric']}{unit} {'↑' if higher else '↓'}"
    return (
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(metric)}</td>"
        f"{numbers}<td>{mark}</td><td>{entry['n']}</td></tr>"
    )


def measures_html(tasks: Mapping[str, Mapping], title: str) -> str:
    """Table of an evaluator: each number with its interval, its bound and its constant."""
    rows = []
    for name, task in tasks.items():
        for entry in (task, *task.get("also", ())):
            interval = entry.get("interval")
            unit = f" [{entry['unit']}]" if entry["unit"] else ""
            arrow = "↑" if entry["higher_is_better"] else "↓"
            cells = (
                number(entry["model"]),
                " … ".join(map(number, interval)) if interval else "–",
                number(entry.get("tokenizer_bound", math.nan)),
                number(entry.get("constant", math.nan)),
                str(entry["n"]),
            )
            rows.append((name, f"{entry['metric']}{unit} {arrow}", *cells))
    columns = ("task", "metric", "model", "95 % interval", "tokenizer bound", "constant", "n")
    return table_html(title, columns, rows)


def bars(values: Mapping[str, float], ylabel: str) -> Figure:
    """Bar plot of {name: value}."""
    figure = Figure(figsize=(max(4, min(0.5 * len(values) + 2, 16)), 3.2))
    axes = figure.subplots()
    axes.bar(range(len(values)), list(values.values()))
    axes.set_xticks(range(len(values)), list(values), rotation=60, ha="right", fontsize=8)
    axes.set_ylabel(ylabel)
    axes.grid(axis="y", alpha=0.3)
    return figure


def table_html(title: str, columns: Sequence[str], rows: Sequence[Sequence]) -> str:
    """Plain table of numbers and texts; floats are formatted by `number`."""
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    body = "".join(
        "<tr>"
        + "".join(
            f"<td>{number(cell) if isinstance(cell, float) else html.escape(str(cell))}</td>"
            for cell in row
        )
        + "</tr>"
        for row in rows
    )
    return f"<h2>{html.escape(title)}</h2><table class=numbers><tr>{head}</tr>{body}</table>"


def curves(history: Mapping[str, tuple[Sequence[float], Sequence[float]]], ylabel: str) -> Figure:
    """Line plot of {name: (steps, values)}."""
    figure = Figure(figsize=(9, 4.2))
    axes = figure.subplots()
    for number, (name, (steps, values)) in enumerate(sorted(history.items())):
        style = ("-", "--", ":")[number // 10 % 3]  # there are ten colours
        axes.plot(steps, values, style, label=name, linewidth=1.3)
    axes.set_xlabel("step")
    axes.set_ylabel(ylabel)
    axes.grid(alpha=0.3)
    if len(history) > 1:
        axes.legend(fontsize=8, ncols=2, loc="upper right")
    return figure


def figure_html(title: str, note: str, figure: Figure) -> str:
    """Heading, note and embedded figure."""
    return (
        f"<h2>{html.escape(title)}</h2><p class=note>{html.escape(note)}</p>"
        f'<img src="{figure_uri(figure)}" alt="{html.escape(title)}">'
    )


def picture_html(title: str, picture: np.ndarray) -> str:
    """Heading and embedded picture, as large as it is."""
    return f'<h2>{html.escape(title)}</h2><img src="{png(picture)}" alt="{html.escape(title)}">'


def write(path: epath.PathLike, *, title: str, summary: str, parts: Sequence[str]) -> None:
    """Write the page atomically; `parts` are HTML fragments made by the functions above."""
    page = (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style>"
        f"<h1>{html.escape(title)}</h1><p class=note>{html.escape(summary)}</p>"
        f"{''.join(parts)}</html>"
    )
    file_io.write_text(path, page)
