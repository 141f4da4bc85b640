"""What a step leaves out: listed beside its shards with the reason, and counted; the rest goes on.

Each shard has a list of its own, `<output>/problems/<shard>.jsonl`, written before the shard is
closed: whoever sees the shard sees its list. Like the shard it depends on the shard's number only.
"""

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any

from etils import epath

from fourm_jax.data.storage import shards
from fourm_jax.utils import io, progress

FOLDER = "problems"
NUM_SHOWN = 5


@dataclasses.dataclass(frozen=True)
class Problem:
    """A record that was left out.

    Attributes:
      file: where it lies.
      reason: what is wrong with it.
      record: its index in what was read, where it has one.
    """

    file: str
    reason: str
    record: int | None = None

    def __str__(self) -> str:
        name = self.file.encode("utf-8", "backslashreplace").decode()
        return f"{name}: {self.reason}"


def attempt(function: Callable[..., Any], *arguments: Any) -> Any | ValueError:
    """What the function returns for values of a record, or the ValueError that says why not."""
    try:
        return function(*arguments)
    except ValueError as error:
        return error
    except Exception as error:  # hostile values break builders in every way there is
        return ValueError(f"{type(error).__name__}: {error}")


def write(
    output: epath.PathLike, split: str, shard: int, num_shards: int, refused: Sequence[Problem]
) -> None:
    """Write the list of one shard; a shard without problems has none."""
    path = _path(output, split, shard, num_shards)
    if refused:
        entries = ({k: v for k, v in vars(one).items() if v is not None} for one in refused)
        io.write_text(path, "".join(f"{json.dumps(entry)}\n" for entry in entries))
    else:
        path.unlink(missing_ok=True)


def read(output: epath.PathLike, split: str) -> list[Problem]:
    """Problems of the shards of one split so far, by any process, in their order."""
    lists = sorted((epath.Path(output) / FOLDER).glob(f"{split}-*.jsonl"))
    return [Problem(**json.loads(line)) for path in lists for line in path.read_text().splitlines()]


def finish(output: epath.PathLike, split: str, num_shards: int) -> None:
    """Remove what writers that were killed left, once the split is finished."""
    if shards.manifest_path(output, split).exists():
        lists = {_path(output, split, shard, num_shards) for shard in range(num_shards)}
        for path in (epath.Path(output) / FOLDER).glob(f"{split}-*"):
            if path not in lists:
                path.unlink(missing_ok=True)


def announce(listed: Sequence[Problem], output: epath.PathLike) -> None:
    """Say how many records were left out, show some, and tell where all are listed."""
    for problem in listed[:NUM_SHOWN]:
        progress.announce(f"left out: {problem}")
    if listed:
        progress.announce(f"left out: {len(listed)}, listed in {epath.Path(output) / FOLDER}")


def _path(output: epath.PathLike, split: str, shard: int, num_shards: int) -> epath.Path:
    folder = epath.Path(output) / FOLDER
    return shards.shard_path(folder, split, shard, num_shards).with_suffix(".jsonl")
