"""Channels of pictures by their names: a model reads those that it knows, in its own order."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fourm_jax.data import datasets
from fourm_jax.data.storage.left_out import RecordError
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.utils import errors


@dataclasses.dataclass(frozen=True)
class PickedChannels:
    """A source some of whose fields show a choice of their channels.

    Attributes:
      picks: {record field: indices of the channels, of how many}.
    """

    source: datasets.Source
    picks: Mapping[str, tuple[Sequence[int], int]]

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One record; RecordError where a picture has another number of channels."""
        record = dict(self.source[index])
        for field, (chosen, count) in self.picks.items():
            if record.get(field) is None:
                continue
            value = np.asarray(record[field])
            if value.ndim != 3 or value.shape[-1] != count:
                message = f"{field!r} has shape {value.shape}, expected {count} channels"
                raise RecordError("wrong_shape", message)
            record[field] = value[..., list(chosen)]
        return record

    def place(self, index: int) -> str:
        """Where a record lies, for messages."""
        return datasets.place(self.source, index)


def pick(
    dataset: datasets.Dataset,
    held: Mapping[str, Sequence[str]],
    specs: Sequence[ModalitySpec],
) -> datasets.Dataset:
    """The data set as the model sees it.

    Args:
      held: {modality: names of the channels that its records hold, in their order}.
      specs: of the model; each names the channels that it reads (`ModalitySpec.channel_names`).

    Raises:
      ValueError: a modality that is no picture of the model with names, or a channel that the
        records lack.
    """
    by_name = {spec.name: spec for spec in specs if spec.channel_names}
    picks = {}
    for modality, names in held.items():
        where = f"data set {dataset.name!r}, channels"
        if modality not in by_name:
            raise ValueError(errors.unknown_value(f"{where} of", modality, by_name))
        names = tuple(names)
        for name in by_name[modality].channel_names:
            if name not in names:
                raise ValueError(errors.unknown_value(f"{where} of {modality!r}", name, names))
        chosen = [names.index(name) for name in by_name[modality].channel_names]
        picks[dataset.fields.get(modality, modality)] = (chosen, len(names))
    if not picks:
        return dataset
    return dataclasses.replace(dataset, source=PickedChannels(dataset.source, picks))
