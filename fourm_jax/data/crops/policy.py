"""Which crops of a raw record the tokenizers see: stored ones, or drawn by its index."""

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from fourm_jax.data.crops import fields, stored
from fourm_jax.data.storage.records import Record
from fourm_jax.utils import errors


@dataclasses.dataclass(frozen=True, kw_only=True)
class Crops:
    """Which crops of each record are tokenized; the config has these keys.

    A record that brings `crop_settings` shows the first of those, so that new tokens fit the ones
    it has; other records get settings drawn from `seed` and their index.

    Attributes:
      num_crops: crops per record: the largest centred square, then random ones.
      size: (height, width) in pixels that crops are resized to.
      scale, ratio, flip_probability: of the random ones, see `transforms.sample_crops`.
      seed: of the random ones. They do not depend on `size`: runs at 224 and 448 pixels agree.
    """

    num_crops: int
    size: tuple[int, int]
    scale: tuple[float, float] = (0.8, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip_probability: float = 0.5
    seed: int = 0

    def views(self, record: Record, index: int, names: Sequence[str]) -> list[dict[str, Any]]:
        """Views of the fields `names`, each with its row of `crop_settings`.

        Raises:
          ValueError: too few stored settings or one outside the picture, or a record that
            `transforms.crop_record` refuses; names the record.
        """
        return self._views(record, index, names, slice(None))

    def view(self, record: Record, index: int, names: Sequence[str], crop: int) -> dict[str, Any]:
        """One of `views`, without the work of the others."""
        (view,) = self._views(record, index, names, slice(crop, crop + 1))
        return view

    def _views(
        self, record: Record, index: int, names: Sequence[str], chosen: slice
    ) -> list[dict[str, Any]]:
        try:
            settings = self._settings(record, index)[chosen]
            views = fields.crop_record(record, settings, tuple(self.size), names=names)
        except ValueError as error:
            raise ValueError(f"record {index}: {error}") from error
        return [{**view, stored.SETTINGS: row} for view, row in zip(views, settings, strict=True)]

    def _settings(self, record: Record, index: int) -> Int[np.ndarray, "n 5"]:
        size = fields.picture_size(record)
        if stored.SETTINGS not in record:
            rng = np.random.default_rng([self.seed, zlib.crc32(b"crops"), index])
            return fields.sample_crops(
                rng, size, self.num_crops, scale=self.scale, ratio=self.ratio,
                flip_probability=self.flip_probability,
            )  # fmt: skip
        settings = stored.check(record[stored.SETTINGS])[: self.num_crops].astype(np.int64)
        if len(settings) < self.num_crops:
            raise ValueError(f"{len(settings)} crops are stored, {self.num_crops} were asked")
        if (settings[:, :2] + settings[:, 2:4] > size).any():
            raise ValueError(f"crops {settings.tolist()} leave the picture of {size}")
        return settings.astype(np.int32)


def make(config: Mapping[str, Any]) -> Crops | None:
    """Crops of the group `crops` of a config; None where `num_crops` is 0 or not there.

    Raises:
      ValueError: an unknown key, a negative number.
    """
    allowed = [field.name for field in dataclasses.fields(Crops)]
    for key in config:
        if key not in allowed:
            raise ValueError(errors.unknown_value("key of crops", key, allowed))
    number = config.get("num_crops", 0)
    if number < 0:
        raise ValueError(f"crops.num_crops {number}, must be at least 0")
    return Crops(**config) if number else None
