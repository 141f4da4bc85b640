"""Which crops of a raw record the tokenizers see: stored ones, or drawn by its index."""

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from fourm_jax.data.crops import fields, settings
from fourm_jax.data.storage.records import Record
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.utils import errors


@dataclasses.dataclass(frozen=True, kw_only=True)
class CropPolicy:
    """Which crops of each record are tokenized; the config has these keys.

    A record that brings `crop_settings` shows the first of those, so that new tokens fit the ones
    it has; other records get settings drawn from `seed` and their index.

    Attributes:
      num_crops: crops per record: the largest centred square, then random ones.
      size: (height, width) in pixels that crops are resized to.
      scale, ratio, flip_probability: of the random ones, see `settings.sample`.
      seed: of the random ones. They do not depend on `size`: runs at 224 and 448 pixels agree.
    """

    num_crops: int
    size: tuple[int, int]
    scale: tuple[float, float] = (0.8, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip_probability: float = 0.5
    seed: int = 0

    def crop_all(
        self,
        record: Record,
        index: int,
        names: Sequence[str],
        specs: Sequence[ModalitySpec] = (),
    ) -> list[dict[str, Any]]:
        """Every crop of the fields `names`, each with its row of `crop_settings`.

        Args:
          specs: modalities of the run, some of which the registry may not have.

        Raises:
          ValueError: too few stored settings or one outside the picture, or a record that
            `fields.crop_record` refuses; names the record.
        """
        return self._crop(record, index, names, specs, range(self.num_crops))

    def crop_one(
        self,
        record: Record,
        index: int,
        names: Sequence[str],
        number: int,
        specs: Sequence[ModalitySpec] = (),
    ) -> dict[str, Any]:
        """One of `crop_all`, without the work of the others."""
        (cropped,) = self._crop(record, index, names, specs, [number])
        return cropped

    def _crop(
        self,
        record: Record,
        index: int,
        names: Sequence[str],
        specs: Sequence[ModalitySpec],
        numbers: Sequence[int],
    ) -> list[dict[str, Any]]:
        try:
            rows = self._settings(record, index, specs)
            crops = [settings.crop_at(rows, number) for number in numbers]
            height, width = self.size
            size = (height, width)
            cropped = [fields.crop_fields(record, crop, size, names, specs) for crop in crops]
        except ValueError as error:
            raise ValueError(f"record {index}: {error}") from error
        return [
            {**one, settings.SETTINGS: rows[number]}
            for one, number in zip(cropped, numbers, strict=True)
        ]

    def _settings(
        self, record: Record, index: int, specs: Sequence[ModalitySpec]
    ) -> Int[np.ndarray, "n 5"]:
        size = fields.picture_size(record, specs)
        if settings.SETTINGS not in record:
            rng = np.random.default_rng([self.seed, zlib.crc32(b"crops"), index])
            shape = {"scale": self.scale, "ratio": self.ratio}
            return settings.sample(
                rng, size, self.num_crops, **shape, flip_probability=self.flip_probability
            )
        stored = settings.check(record[settings.SETTINGS], size)[: self.num_crops]
        if len(stored) < self.num_crops:
            raise ValueError(f"{len(stored)} crops are stored, {self.num_crops} were asked")
        return stored


def make(config: Mapping[str, Any]) -> CropPolicy | None:
    """Policy of the group `crops` of a config; None where `num_crops` is 0 or not there.

    Raises:
      ValueError: an unknown key, a negative number.
    """
    allowed = [field.name for field in dataclasses.fields(CropPolicy)]
    for key in config:
        if key not in allowed:
            raise ValueError(errors.unknown_value("key of crops", key, allowed))
    number = config.get("num_crops", 0)
    if number < 0:
        raise ValueError(f"crops.num_crops {number}, must be at least 0")
    return CropPolicy(**config) if number else None
