"""What generation is asked for: many rows of conditions from a folder, JSON lines or TSV."""

import csv
import dataclasses
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Bool

from fourm_jax.data import datasets
from fourm_jax.generate import condition_files, editing
from fourm_jax.modalities import serializers
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.utils import io, picture_files, run_folder
from fourm_jax.utils.errors import unknown_value

MAX_REQUESTS = 10**6
PROMPT = "prompt"  # another name of the captions' column
RESERVED = ("name", "seed")
ENCODING = "utf-8-sig"  # UTF-8; the mark that spreadsheets put before it is no part of the text

Specs = Mapping[str, ModalitySpec]  # what may be given, by name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """One row of conditions.

    Attributes:
      name: of its folder of results.
      conditions: values by modality, see `generate.conditions.encode`.
      given: the same as they were typed, for records.
      seed: of its draws.
    """

    name: str
    conditions: Mapping[str, Any]
    given: Mapping[str, Any]
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain data from which the request can be made again."""
        return {"name": self.name, "conditions": dict(self.given), "seed": self.seed}


def read(path: epath.Path, specs: Specs, *, seed: int) -> list[Request]:
    """Requests in a file or folder; number i has seed + i unless it says its own.

    Args:
      path: a folder of pictures, one request each; JSON lines such as {"caption": "a red cone"};
        or tab-separated values under the names of modalities. "name" and "seed" may stand beside.
      specs: conditions that the model takes.

    Raises:
      ValueError: nothing there, or a line that cannot be read; names its number.
    """
    if path.is_dir():
        found = _folder(path, specs)
    elif path.suffix == ".jsonl":
        found = _json_lines(path)
    elif path.suffix == ".tsv":
        found = _table(path, specs)
    else:
        raise ValueError(f"{path}: expected a folder of pictures, NAME.jsonl or NAME.tsv")
    requests, names = [], set[str]()
    for number, (where, line) in enumerate(_decoded(path, found)):
        if number >= MAX_REQUESTS:
            raise ValueError(f"{path}: more than {MAX_REQUESTS} requests")
        try:
            request = _request(line, specs, number, seed)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        if request.name in names:
            raise ValueError(f"{where}: name {request.name!r} stands there twice")
        names.add(request.name)
        requests.append(request)
    if not requests:
        raise ValueError(f"{path}: no request in it")
    return requests


def typed(
    texts: Sequence[str],
    specs: Specs,
    record: Callable[[], Mapping[str, Any]],
    *,
    record_name: str,
    seed: int,
) -> Request:
    """The request of "name=value" texts, or "name" for the value of a held-out record.

    Args:
      texts: of the conditions.
      specs: conditions that the model takes.
      record: reads the record.
      record_name: which one that is, for what is kept of the request.
      seed: of its draws.

    Raises:
      ValueError: an unknown condition, or a file or record that is not there.
    """
    conditions: dict[str, Any] = {}
    given: dict[str, Any] = {}
    for name, value in (text.partition("=")[::2] for text in texts):
        if name not in specs:
            raise ValueError(unknown_value("condition", name, specs))
        if name in given:
            raise ValueError(f"condition {name!r} is given twice; weigh several as guides")
        given[name] = value or record_name
        if value:
            conditions[name] = condition_files.read(value, specs[name])
        else:
            conditions[name] = record()[specs[name].source]
    return Request(name="result", conditions=conditions, given=given, seed=seed)


def held_out_record(source: epath.Path, index: int) -> dict[str, Any]:
    """One of the held-out raw records of a run.

    Raises:
      ValueError: the source is no run that has some, or has fewer.
    """
    raw = source / run_folder.RAW
    if not raw.is_dir():
        raise ValueError(
            f"{source} has no held-out records ({raw}): give each condition a value, as in "
            "--conditions=rgb=picture.png"
        )
    records = datasets.open_source("token_shards", "test", {"directory": raw})
    if not 0 <= index < len(records):
        raise ValueError(f"--record={index}, allowed: 0..{len(records) - 1}")
    return records[index]


def edited(
    request: Request, specs: Specs, mask: str | None, shift: tuple[int, ...] | None
) -> tuple[Request, Bool[np.ndarray, "h w"]]:
    """The request with its pictures moved, and the mask of what is generated anew.

    Args:
      mask: as it is typed, see `editing.parse_mask`; read where there is no `shift`.
      shift: rows and columns that pictures and maps move down and right.

    Raises:
      ValueError: no picture or map among the conditions, or a mask or shift that is none.
    """
    grids = [name for name in request.conditions if specs[name].kind in ("grid", "pixels")]
    if not grids:
        raise ValueError("a mask or shift is for pictures and maps that are given; there is none")
    arrays = {name: editing.read(request.conditions[name], specs[name]) for name in grids}
    size = next(iter(arrays.values())).shape[:2]
    if shift is None:
        noted = dataclasses.replace(request, given={**request.given, "mask": mask})
        return noted, editing.parse_mask(mask or "", size)
    rows, columns = shift
    moved = {name: editing.shifted(array, rows, columns)[0] for name, array in arrays.items()}
    changed = dataclasses.replace(
        request,
        conditions={**request.conditions, **moved},
        given={**request.given, "shift": [rows, columns]},
    )
    return changed, editing.shifted(np.zeros(size), rows, columns)[1]


def _decoded(path: epath.Path, found: Iterator[Any]) -> Iterator[Any]:
    """The same; a text in another encoding is named."""
    try:
        yield from found
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8: {error}") from error


def _request(line: Mapping[str, Any], specs: Specs, number: int, seed: int) -> Request:
    given = {key: value for key, value in line.items() if key not in RESERVED}
    if not given:
        raise ValueError(f"no condition, allowed: {sorted(specs)}")
    for key in given:
        if key not in specs:
            raise ValueError(unknown_value("condition", key, specs))
    name, own = str(line.get("name", f"{number:05}")), line.get("seed", seed + number)
    if not re.fullmatch(r"[\w.\- ]{1,100}", name) or name.startswith("."):
        raise ValueError(f"name {name!r}, allowed: up to 100 letters, digits and . _ -")
    if not str(own).isdigit():
        raise ValueError(f"seed {own!r}, allowed: an integer from 0 on")
    conditions = {
        key: condition_files.read(value, specs[key]) if isinstance(value, str) else value
        for key, value in given.items()
    }
    return Request(name=name, conditions=conditions, given=given, seed=int(own))


def _folder(path: epath.Path, specs: Specs) -> Iterator[tuple[str, dict[str, Any]]]:
    pixels = [name for name, spec in specs.items() if spec.kind == "pixels"]
    if not pixels:
        raise ValueError(f"{path}: a folder of pictures, but the model reads no pixels")
    for file in sorted(path.iterdir()):
        if file.suffix.lower() in picture_files.SUFFIXES:
            name = re.sub(r"[^\w.\- ]", "_", file.name)[:100]
            yield str(file), {"name": name, pixels[0]: str(file)}


def _json_lines(path: epath.Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with pathlib.Path(path).open(encoding=ENCODING) as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                where = f"{path}, line {number}"
                value = io.parse_json(line, where)
                if not isinstance(value, dict):
                    raise ValueError(f"{where}: expected names with values")
                yield where, value


def _table(path: epath.Path, specs: Specs) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows under a heading of modalities; a single column without one holds captions."""
    texts = [
        n for n, s in specs.items() if s.kind == "sequence" and s.text_form == serializers.PLAIN
    ]
    with pathlib.Path(path).open(encoding=ENCODING, newline="") as file:
        lines = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        columns: list[str] | None = None
        for number, cells in enumerate(lines, 1):
            if columns is None:
                columns = [texts[0] if texts and cell.lower() == PROMPT else cell for cell in cells]
                if any(column in specs for column in columns):
                    continue
                if len(cells) != 1 or not texts:
                    raise ValueError(f"{path}: {unknown_value('column', cells[0], specs)}")
                columns = texts[:1]
            if any(cells[len(columns) :]):
                raise ValueError(
                    f"{path}, line {number}: {len(cells)} values between tabs, the heading has "
                    f"{len(columns)}"
                )
            if any(cells):
                used = zip(columns, cells, strict=False)
                known = {key: cell for key, cell in used if key in specs or key in RESERVED}
                yield f"{path}, line {number}", known
