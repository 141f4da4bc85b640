"""Which records a training run left out: counted, listed in its workdir, limited to a number."""

import json
from collections.abc import Sequence

from etils import epath

from fourm_jax.data.storage import left_out
from fourm_jax.data.storage.left_out import LeftOutRecord
from fourm_jax.utils import io, plain_data, progress

PREFIX = "left_out"
RULES = {**left_out.RULES, "batch": plain_data.integer(0, 2**63)}
Key = tuple[str, int | str | None]  # data set and record


class TooManyError(ValueError):
    """More left-out records than the run tolerates."""


class LeftOutLog:
    """The left-out records of a run, each counted once however often it is drawn.

    They are listed in `<directory>/left_out-<process>.jsonl`, one line per record with the first
    batch that met it. So a resumed run knows those of the batches that it does not read again, and
    each of several processes those of all.
    """

    def __init__(
        self,
        limit: int,
        directory: epath.PathLike | None = None,
        *,
        process_index: int = 0,
        process_count: int = 1,
    ) -> None:
        """Count up to `limit` records; without a directory nothing is written or announced."""
        self.limit = limit
        self._directory = None if directory is None else epath.Path(directory)
        self._index, self._count = process_index, process_count
        self._found: dict[Key, dict] = {}

    def resume(self, start: int) -> None:
        """Keep what was listed before batch `start`, which is read next; forget the rest.

        A run without tolerance has no list.
        """
        if self._directory is None or not self.limit:
            return
        numbers = [self._index]
        if not self._index:  # also the lists of processes that this run no longer has
            listed = self._directory.glob(f"{PREFIX}-*.jsonl")
            names = [path.stem.removeprefix(f"{PREFIX}-") for path in listed]
            others = (int(name) for name in names if name.isdecimal())
            numbers += [number for number in others if number >= self._count]
        self._found = {}
        for number in numbers:
            for entry in _read(self._path(number)):
                if entry["batch"] < start:
                    self._found.setdefault(_key(entry), entry)
        text = "".join(json.dumps(entry) + "\n" for entry in self._found.values())
        io.write_text(self._path(self._index), text)
        for number in numbers[1:]:
            self._path(number).unlink(missing_ok=True)

    def add(self, batch: int, records: Sequence[LeftOutRecord]) -> list[LeftOutRecord]:
        """Count and list what batch number `batch` met; return those that are new.

        Raises:
          TooManyError: more than `limit` different records, those of other processes included.
        """
        new = []
        for one in records:
            entry = {"batch": batch, **json.loads(left_out.dump(one))}
            if _key(entry) in self._found:
                continue
            self._found[_key(entry)] = entry
            new.append(one)
            if self._directory is not None:
                io.append(self._path(self._index), (json.dumps(entry) + "\n").encode())
                progress.announce(f"left-out record {len(self._all())}, replaced: {one.message}")
            self.check(one.message)
        return new

    def check(self, last: str) -> None:
        """Raise TooManyError if more records than the limit were found; `last` is the last one's
        message."""
        found = len(self._all())
        if found > self.limit:
            listed = f"; all are listed in {self._directory}" if self._directory else ""
            raise TooManyError(
                f"{found} left-out records, allowed: {self.limit} "
                f"(config.max_left_out_records){listed}. The last one: {last}"
            )

    def count(self, before: int) -> int:
        """Number of different records that the batches below `before` met."""
        return sum(entry["batch"] < before for entry in self._all())

    def _all(self) -> list[dict]:
        """Entries of all processes, each record once with its first batch."""
        found = dict(self._found)
        if self._directory is not None and self._count > 1:
            for number in range(self._count):
                for entry in _read(self._path(number)) if number != self._index else ():
                    key = _key(entry)
                    if key not in found or entry["batch"] < found[key]["batch"]:
                        found[key] = entry
        return list(found.values())

    def _path(self, process: int) -> epath.Path:
        assert self._directory is not None
        return self._directory / f"{PREFIX}-{process}.jsonl"


def _key(entry: dict) -> Key:
    return entry["place"], entry.get("record")


def _read(path: epath.Path) -> list[dict]:
    """Entries of a list; a last line that a killed process left half written is dropped."""
    entries = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            entry = io.parse_json(line, path)
            plain_data.check(entry, RULES, path, required=("batch", "place"))
        except ValueError:
            continue
        entries.append(entry)
    return entries
