"""Source of single crops of a built data set of pictures, all of one size: to train tokenizers."""

from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from fourm_jax.data.crops import fields as crop_fields
from fourm_jax.data.crops import policy
from fourm_jax.data.storage import shards
from fourm_jax.modalities import registry
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.utils import errors


def make_source(
    split: str,
    *,
    directory: epath.PathLike,
    image_size: int,
    fields: Sequence[str],
    num_crops: int = 4,
    seed: int = 0,
    added: Mapping[str, Mapping[str, Any]] | None = None,
) -> "PictureCrops":
    """Open what `experiments.build_data` wrote.

    Args:
      image_size: crops are squares of so many pixels.
      fields: record fields to crop.
      num_crops: of each picture: its largest centred square, then random ones.
      seed: of the random ones, which do not depend on anything else.
      added: modalities that the registry does not have and that read some of the fields, see
        `registry.resolve`; a crop does to a field what the modality's `crop` says.

    Raises:
      ValueError: no such data set or field, a field that is not cropped, a number below 1.
    """
    if image_size < 1 or num_crops < 1:
        raise ValueError(f"image_size {image_size} and num_crops {num_crops}, allowed: 1 and more")
    reader, specs = shards.Reader(directory, split), registry.described(added or {})
    for field in fields:
        allowed = sorted(reader.fields.keys() & crop_fields.field_rules(specs).keys())
        if field not in allowed:
            raise ValueError(errors.unknown_value(f"field of {directory}", field, allowed))
    size = (image_size, image_size)
    crops = policy.CropPolicy(num_crops=num_crops, size=size, seed=seed)
    return PictureCrops(reader, crops, fields, specs)


class PictureCrops:
    """Random access to the crops; those of one picture follow each other."""

    def __init__(
        self,
        reader: shards.Reader,
        crops: policy.CropPolicy,
        fields: Sequence[str],
        specs: Sequence[ModalitySpec],
    ) -> None:
        self._reader, self._crops = reader, crops
        self._fields, self._specs = tuple(fields), tuple(specs)

    def __len__(self) -> int:
        return len(self._reader) * self._crops.num_crops

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The fields of one crop; ValueError naming the record if it cannot be cropped."""
        if not 0 <= index < len(self):
            raise IndexError(f"crop {index}, allowed: 0..{len(self) - 1}")
        record, crop = divmod(index, self._crops.num_crops)
        return self._crops.crop_one(self._reader[record], record, self._fields, crop, self._specs)

    def place(self, index: int) -> str:
        """File, record and crop, for messages."""
        record, crop = divmod(index, self._crops.num_crops)
        return f"{self._reader.place(record)}, crop {crop}"
