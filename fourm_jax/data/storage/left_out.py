"""Records that a step leaves out: each listed with its reason, all counted; the rest goes on.

A finished split has one list, `<output>/<split>.left_out.jsonl` (docs/formats.md#left-out-records),
empty where nothing was left out. While a split is written, each shard has a part of it beside it,
written before the shard is closed: a shard that is there has its part.
"""

import collections
import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from etils import epath

from fourm_jax.data.storage import shards
from fourm_jax.modalities.coordinates import Changes
from fourm_jax.utils import io, plain_data, progress, storage_errors

MAX_MESSAGE = 500  # characters: a message may quote what is wrong
NUM_EXAMPLES = 5
RULES = {
    **dict.fromkeys(("place", "modality", "reason", "message"), plain_data.TEXT),
    "record": plain_data.any_of(plain_data.TEXT, plain_data.integer(0, 2**63)),
    "kept": plain_data.FLAG,
    "num_clipped": plain_data.integer(0, 2**63),
    "num_empty": plain_data.integer(0, 2**63),
}


class RecordError(ValueError):
    """A record, or one value of it, that cannot be used.

    Attributes:
      reason: one word to count by, such as "unreadable_picture"; the message says the rest.
      row: row of the batch that holds the record, where a batch is checked.
    """

    def __init__(self, reason: str, message: str, row: int | None = None) -> None:
        super().__init__(message)
        self.reason, self.row = reason, row

    def __reduce__(self):
        return type(self), (self.reason, str(self), self.row)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LeftOutRecord:
    """A record that was left out, or one modality of a record that was kept without it.

    Or one modality that the record keeps, numbers of which were clipped or boxes left out.

    Attributes:
      place: file, shard or data set that holds it.
      record: its index or name there. None: all of `place`, which is a record of its own or, where
        `modality` is given, a shard of that modality.
      modality: which one is bad; "" = the record.
      reason: one word to count by.
      message: what is wrong.
      kept: whether the record goes on without the modality.
      num_clipped: numbers slightly outside of their range that were clipped; the record goes on
        with the modality.
      num_empty: boxes, humans or masks without width or height that were left out; the record goes
        on with the others.
    """

    place: str
    record: int | str | None = None
    modality: str = ""
    reason: str
    message: str
    kept: bool = False
    num_clipped: int = 0
    num_empty: int = 0

    def __str__(self) -> str:
        name = self.place.encode("utf-8", "backslashreplace").decode()
        return f"{name}: {self.message}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """What was left out of a split.

    Attributes:
      num_records: that are not there.
      num_incomplete: that are there without some modality.
      num_clipped: numbers that were clipped to their range, of `num_records_clipped` records.
      num_empty: boxes and the like that were left out alone, of `num_records_with_empty` records.
      reasons, modalities: how many entries about what was left out have which.
      examples: the first few of these entries.
    """

    num_records: int
    num_incomplete: int
    num_clipped: int
    num_records_clipped: int
    num_empty: int
    num_records_with_empty: int
    reasons: Mapping[str, int]
    modalities: Mapping[str, int]
    examples: tuple[LeftOutRecord, ...]


def attempt(function: Callable[..., Any], *arguments: Any) -> Any | ValueError:
    """What the function returns for values of a record, or the ValueError that says why not.

    Raises:
      OSError: storage fails at the moment, which says nothing about the record.
    """
    try:
        return function(*arguments)
    except ValueError as error:
        return error
    except Exception as error:  # hostile values break builders in every way there is
        if storage_errors.is_transient(error):
            raise
        refused = RecordError("bad_value", f"{type(error).__name__}: {error}")
        refused.__cause__ = error  # where it came from, if somebody raises it
        return refused


def reason_of(error: Exception, otherwise: str) -> str:
    """The word to count an error by; `otherwise` where the error has none of its own."""
    return getattr(error, "reason", otherwise)


def about_changes(
    place: str, record: int | str | None, modality: str, changes: Changes
) -> Iterator[LeftOutRecord]:
    """The entries about a modality that a record keeps, changed; none where it is not."""
    about = functools.partial(
        LeftOutRecord, place=place, record=record, modality=modality, kept=True
    )
    if count := changes.num_clipped:
        message = f"{count} numbers slightly outside of their range, clipped"
        yield about(reason="clipped", message=message, num_clipped=count)
    if count := changes.num_empty:
        message = f"{count} without width or height, left out alone"
        yield about(reason="empty_box", message=message, num_empty=count)


def list_path(output: epath.PathLike, split: str) -> epath.Path:
    """Path of the list of a finished split."""
    return epath.Path(output) / f"{split}.left_out.jsonl"


def write_part(
    output: epath.PathLike,
    split: str,
    shard: int,
    num_shards: int,
    left_out: Iterable[LeftOutRecord],
) -> None:
    """Write what one shard left out; an empty part says that the shard was looked through."""
    lines = (dump(one) + "\n" for one in left_out)
    io.write_text(_part_path(output, split, shard, num_shards), "".join(lines))


def read(output: epath.PathLike, split: str) -> Iterator[LeftOutRecord]:
    """Yield what was left out of a split so far, by any process, in the order of the shards.

    Lists of older versions (`problems/`, `import_report/`) are not read.
    """
    path = list_path(output, split)
    parts = sorted(epath.Path(output).glob(f"{split}-*-of-*.left_out.jsonl"))
    for part in [path] if path.exists() else parts:
        yield from read_lines(part)


def gone(output: epath.PathLike, split: str) -> set[int | str | None]:
    """Numbers or names of the records that a split lacks: not those that were kept."""
    return {one.record for one in read(output, split) if not one.kept}


def finish(output: epath.PathLike, split: str, num_shards: int) -> None:
    """Join the parts once the shards of a split are finished, and remove them."""
    if shards.manifest_path(output, split).exists():
        join(output, split, num_shards)


def join(output: epath.PathLike, split: str, num_shards: int) -> None:
    """Join the parts of a finished split, and remove them."""
    path = list_path(output, split)
    parts = [_part_path(output, split, shard, num_shards) for shard in range(num_shards)]
    if not path.exists():
        # A missing part: another process has just joined and removed them.
        with contextlib.suppress(FileNotFoundError):
            _join(parts, path)
    if path.exists():  # what is left are parts and the beginnings that killed writers left
        for leftover in (*parts, *path.parent.glob(f"{path.name}.*.tmp")):
            leftover.unlink(missing_ok=True)


def summarize(output: epath.PathLike, split: str) -> Summary:
    """Count what was left out of a split so far."""
    gone: set[int | str] = set()
    incomplete: set[int | str] = set()
    clipped: collections.Counter[int | str] = collections.Counter()
    with_empty: collections.Counter[int | str] = collections.Counter()
    examples: list[LeftOutRecord] = []
    reasons: collections.Counter[str] = collections.Counter()
    modalities: collections.Counter[str] = collections.Counter()
    for one in read(output, split):
        name = one.place if one.record is None else one.record
        if one.num_clipped:
            clipped[name] += one.num_clipped
        if one.num_empty:
            with_empty[name] += one.num_empty
        if one.num_clipped or one.num_empty:
            continue
        if one.record is not None or not one.modality:
            (incomplete if one.kept else gone).add(name)
        reasons[one.reason] += 1
        if one.modality:
            modalities[one.modality] += 1
        if len(examples) < NUM_EXAMPLES:
            examples.append(one)
    return Summary(
        num_records=len(gone),
        num_incomplete=len(incomplete),
        num_clipped=clipped.total(),
        num_records_clipped=len(clipped),
        num_empty=with_empty.total(),
        num_records_with_empty=len(with_empty),
        reasons=dict(sorted(reasons.items())),
        modalities=dict(sorted(modalities.items())),
        examples=tuple(examples),
    )


def announce(output: epath.PathLike, split: str) -> None:
    """Print how many records were left out and why, a few of them, and where all are listed."""
    summary = summarize(output, split)
    for one in summary.examples:
        progress.announce(f"left out: {one}")
    for reason, count in summary.reasons.items():
        progress.announce(f"  {count} x {reason}")
    path = list_path(output, split)
    if summary.examples:
        progress.announce(f"{split}: {summary.num_records} left out, listed in {path}")
    if summary.num_clipped:
        progress.announce(
            f"{split}: {summary.num_clipped} numbers of {summary.num_records_clipped} records lay "
            f"slightly outside of their range and were clipped, listed in {path}"
        )
    if summary.num_empty:
        progress.announce(
            f"{split}: {summary.num_empty} boxes, humans or masks of "
            f"{summary.num_records_with_empty} records had no width or height and were left out "
            f"alone, listed in {path}"
        )


def dump(one: LeftOutRecord) -> str:
    """One line of a list; what has its default value is not written."""
    entry = {
        field.name: getattr(one, field.name)
        for field in dataclasses.fields(one)
        if getattr(one, field.name) != field.default
    }
    return json.dumps({**entry, "message": one.message[:MAX_MESSAGE]})


def read_lines(path: epath.PathLike) -> Iterator[LeftOutRecord]:
    """Yield the entries of a list.

    Raises:
      ValueError: a line that `dump` did not write; names it.
    """
    with epath.Path(path).open() as file:
        for number, line in enumerate(file, 1):
            where = f"{path}, line {number}"
            entry = io.parse_json(line, where)
            plain_data.check(entry, RULES, where, required=("place", "reason", "message"))
            if set(entry) - set(RULES):
                raise ValueError(f"{where}: fields {sorted(entry)}, known: {sorted(RULES)}")
            yield LeftOutRecord(**entry)


def _join(parts: Iterable[epath.Path], path: epath.Path) -> None:
    temporary = io.temporary_name(path)
    try:
        with temporary.open("w") as file:
            for part in parts:
                file.write(part.read_text())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _part_path(output: epath.PathLike, split: str, shard: int, num_shards: int) -> epath.Path:
    path = shards.shard_path(output, split, shard, num_shards)
    return path.with_suffix(".left_out.jsonl")
