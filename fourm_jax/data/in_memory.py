"""Records that lie in memory, the bad ones among them as the errors that say why."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from fourm_jax.data.storage.left_out import RecordError, reason_of


@dataclasses.dataclass(frozen=True)
class Rows:
    """A source of records that were read, and often encoded, before.

    Attributes:
      rows: each a record, or why it cannot be used; whoever reads that one meets a RecordError.
    """

    rows: Sequence[dict[str, Any] | ValueError]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        if isinstance(row, ValueError):
            raise RecordError(reason_of(row, "unreadable_record"), str(row)) from row
        return row
