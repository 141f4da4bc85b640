"""Prepared TFDS data sets as sources of raw records: random access, and TensorFlow is never loaded.

A data set is read from its prepared folder alone (metadata and ArrayRecord shards). The code that
made it stays unloaded: for some data sets, COCO among them, it would import TensorFlow.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from fourm_jax.data.crops import fields as crop_fields
from fourm_jax.data.crops import settings
from fourm_jax.data.sources import tfds_fields
from fourm_jax.utils import errors, storage_errors

_NAME = re.compile(r"(?P<name>\w+)(/(?P<config>\w[\w.+-]*))?(:(?P<version>\d+\.\d+\.\d+))?")
_VERSION = re.compile(r"\d+\.\d+\.\d+")


def make_source(
    split: str,
    *,
    dataset: str,
    fields: Mapping[str, Sequence[str]],
    splits: Mapping[str, str] | None = None,
    data_dir: str = "",
    image_size: int = 0,
    num_records: int = 0,
) -> "TfdsSource":
    """Open one split of a prepared TFDS data set.

    Args:
      dataset: its TFDS name, "coco/2017_panoptic" or with a version "clevr:3.1.0"; without one the
        newest that is prepared.
      fields: {record field: (reader, feature, …)}: a function of `tfds_fields` and the top-level
        features that it reads, e.g. {"rgb": ("picture", "image")}. Other features are not decoded.
      splits: {our split: TFDS split}, e.g. {"train": "train+restval"}; None: they have one name.
      data_dir: where TFDS keeps data sets; "" = $TFDS_DATA_DIR or ~/tensorflow_datasets.
      image_size: pictures become their largest centred square, resized to so many pixels, with
        everything else of the record; 0 = as they are.
      num_records: the first so many; 0 = all.

    Raises:
      ValueError: a data set that is not prepared, or not as ArrayRecord (says how to do it), an
        unknown split, reader or feature, a reader that does not fit its feature, a missing shard.
    """
    if splits is not None and split not in splits:
        raise ValueError(errors.unknown_value(f"split of {dataset!r}", split, splits))
    name = split if splits is None else splits[split]
    return TfdsSource(dataset, name, dict(fields), data_dir, image_size, num_records)


class TfdsSource:
    """Random access to raw records; a field that an example does not have is absent."""

    def __init__(
        self,
        dataset: str,
        split: str,
        fields: Mapping[str, Sequence[str]],
        data_dir: str = "",
        image_size: int = 0,
        num_records: int = 0,
    ) -> None:
        self._arguments = (dataset, split, fields, data_dir, image_size, num_records)
        self._folder, self._split, self._image_size = find(dataset, data_dir), split, image_size
        builder = _open(self._folder, dataset)
        known = builder.info.features
        self._inputs = {field: tuple(spec[1:]) for field, spec in fields.items()}
        used = dict.fromkeys(name for names in self._inputs.values() for name in names)
        for name in used:
            if name not in known:
                raise ValueError(errors.unknown_value(f"feature of {dataset!r}", name, known))
        self._readers = {
            field: tfds_fields.make_reader(spec[0], {name: known[name] for name in spec[1:]})
            for field, spec in fields.items()
        }
        # A smaller FeaturesDict skips what is not asked for; pictures stay bytes until checked.
        self._features = tfds.features.FeaturesDict({name: known[name] for name in used})
        self._decoders = {
            name: tfds.decode.SkipDecoding()
            for name in used
            if isinstance(known[name], tfds.features.Image)
        }
        try:
            self._examples = builder.as_data_source(
                split=split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
            )
            available = len(self._examples)
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"{self._folder}, split {split!r}: {error}") from error
        if not 0 <= num_records <= available:
            raise ValueError(f"num_records {num_records}, allowed: 0..{available}")
        self._num_records = num_records or available

    def __len__(self) -> int:
        return self._num_records

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read one record.

        Raises:
          ValueError: damaged bytes, or a value that its reader refuses; names folder, split,
            record and field.
          StorageError: bytes that are not readable at the moment; names the record.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"record {index}, allowed: 0..{len(self) - 1}")
        example = self._example(int(index))
        record = {}
        for field, reader in self._readers.items():
            values = [example[name] for name in self._inputs[field]]
            try:
                value = None if any(part is None for part in values) else reader(*values)
            except Exception as error:  # values may break whatever their features promise
                raise ValueError(f"{self.place(index)}, field {field!r}: {error}") from error
            if value is not None:
                record[field] = value
        return _centre_square(record, self._image_size) if self._image_size else record

    def place(self, index: int) -> str:
        """Name folder, split and record of an index, for messages."""
        return f"{self._folder}, split {self._split!r}, record {index}"

    def __reduce__(self):
        # Worker processes open the files again.
        return TfdsSource, self._arguments

    def _example(self, index: int) -> dict[str, Any]:
        try:
            read = self._examples.__getitem__
            data = storage_errors.retried(read, index, file=self.place(index))
            if not data:  # what a shard that is cut short gives
                raise ValueError("no bytes, is the shard cut short?")
            return self._features.deserialize_example_np(data, decoders=self._decoders)
        except storage_errors.StorageError:
            raise
        except Exception as error:  # TFDS raises whatever damaged bytes lead to
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise ValueError(f"{self.place(index)} is damaged: {reason}") from error


def find(dataset: str, data_dir: str = "") -> epath.Path:
    """Folder `<data_dir>/<name>[/<config>]/<version>` of a prepared data set.

    Raises:
      ValueError: not a name, or no such folder (says how to prepare it, and what is there).
    """
    match = _NAME.fullmatch(dataset)
    if not match:
        raise ValueError(f"TFDS data set {dataset!r}, allowed: name[/config][:version]")
    root = epath.Path(data_dir or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets"))
    root = root.expanduser()
    folder = root / match["name"] / (match["config"] or "")
    found = sorted(path.name for path in folder.glob("*") if path.is_dir())
    versions = [name for name in found if _VERSION.fullmatch(name)]
    if match["version"]:
        versions = [name for name in versions if name == match["version"]]
    if not versions:
        raise ValueError(
            f"TFDS data set {dataset!r} is not prepared in {root} (in {folder}: "
            f"{found or 'nothing'}). {_how_to_prepare(dataset, root)}"
        )
    return folder / max(versions, key=lambda name: tuple(map(int, name.split("."))))


def _how_to_prepare(dataset: str, root: epath.Path) -> str:
    return (
        'Prepare it with: pip install -e ".[tensorflow]" && '
        f"tfds build {dataset} --file_format=array_record --data_dir={root}"
    )


def _open(folder: epath.Path, dataset: str) -> tfds.core.DatasetBuilder:
    """Builder of a prepared folder, without the code of the data set."""
    _check_features(folder / "features.json")
    try:
        builder = tfds.builder_from_directory(folder)
    except Exception as error:  # of metadata that are not what TFDS wrote
        raise ValueError(f"{folder}: metadata are not readable: {error}") from error
    formats = sorted(found.value for found in builder.info.available_file_formats())
    if "array_record" not in formats:
        raise ValueError(
            f"{folder} holds {formats}, and only array_record has random access. Convert it with: "
            f'pip install -e ".[tensorflow]" && tfds convert_format '
            f"--dataset_version_dir={folder} --out_file_format=array_record"
        )
    return builder


def _check_features(path: epath.Path) -> None:
    """Refuse metadata that name classes of other packages: TFDS would import what they name."""
    names: list[Any] = []

    def collect(values: dict[str, Any]) -> dict[str, Any]:
        names.append(values.get("pythonClassName", "tensorflow_datasets."))
        if "content" in values:  # the form of old versions
            names.append(values.get("type"))
        return values

    try:
        json.loads(path.read_text(), object_hook=collect)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not readable: {error}") from error
    for name in names:
        if not str(name).startswith("tensorflow_datasets."):
            raise ValueError(f"{path}: feature class {name!r}, allowed: classes of TFDS")


def _centre_square(record: dict[str, Any], size: int) -> dict[str, Any]:
    """The centre crop of all fields; a record without pictures as it is."""
    rules = crop_fields.field_rules()
    pictures = [
        value.shape[:2]
        for field, value in record.items()
        if isinstance(rules.get(field), crop_fields.Picture | crop_fields.Normals)
    ]
    if not pictures:
        return record
    [square] = crop_fields.crop_record(record, settings.centre(pictures[0]), (size, size))
    if "det" in square:  # records hold plain values
        boxes = square["det"]
        square["det"] = {"boxes": boxes.boxes.astype(np.float32), "classes": list(boxes.classes)}
    return square
