"""The records that a model is evaluated on: tokens and, where they were kept, raw fields.

Three ways lead to them: the data of the run itself, another data set of token shards, or raw
records that the run's tokenizers encode here.
"""

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
from etils import epath

from fourm_jax.data import channels, in_memory, pipeline
from fourm_jax.data import datasets as sources
from fourm_jax.data.crops import policy, settings
from fourm_jax.data.datasets import Dataset
from fourm_jax.data.left_out_log import LeftOutLog
from fourm_jax.data.storage import left_out, shards
from fourm_jax.evals.evaluator import Masking, Records
from fourm_jax.generate.generator import Generator
from fourm_jax.jobs import encoders, run_phases
from fourm_jax.masking import mixture
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.models.fourm import FourM
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import io, run_folder, upgrades

PUBLISHED_SLOTS = 256  # inputs and targets of a validation loss where no run says how many
# Argument of a source of tokens that leads to a folder beside raw records.
DIRECTORY = "directory"
FOLDERS = (DIRECTORY, "data_dir")  # all arguments of sources that are paths


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class EvalData:
    """Data sets of a model's modalities.

    Attributes:
      groups: data sets of tokens, as `data.datasets.make_datasets` takes them, masking mixtures
        among them; or one of raw records, as `configs.datasets.tokenize` describes it.
      tokenizers: folder of those that encode raw records; None: nothing is encoded.
      max_left_out_records: so many bad ones may be left out of those that are read.
    """

    groups: tuple[Mapping[str, Any], ...]
    tokenizers: epath.Path | None = None
    max_left_out_records: int = 0

    @property
    def is_raw(self) -> bool:
        """Whether tokens are made here."""
        return "modalities" in self.groups[0]

    def describe(self) -> list[Any]:
        """Plain values that `from_description` reads."""
        return [config_lib.to_json(group) for group in self.groups]

    def datasets(
        self, specs: Sequence[ModalitySpec], split: str, count: int
    ) -> tuple[Dataset, ...]:
        """Data sets of tokens; whoever reads a bad record, or one that is not encoded, is told so.

        Pictures have the channels of `specs`, in their order, as in training.

        Raises:
          ValueError: a split without records, or one whose records are all bad; a source that
            cannot be opened; channels that the records lack.
        """
        if self.is_raw:
            return (self._encoded(specs, self._raw_rows(specs, split, count)),)
        named = [{"arguments": {}, "fields": {}, "weight": 1.0, **one} for one in self.groups]
        found = sources.make_datasets(named, split)
        for one in found:
            if not len(one.source):
                raise ValueError(f"data set {one.name!r}: split {split!r} has no records")
        asked = {spec.name for spec in specs}  # maybe one of those that the data set has
        return tuple(
            channels.pick(one, {n: held for n, held in own.items() if n in asked}, specs)
            for one, own in zip(found, (g.get("channels", {}) for g in self.groups), strict=True)
        )

    def read(self, specs: Sequence[ModalitySpec], split: str, count: int) -> Records:
        """The first `count` records of each data set (0: all), with their raw fields.

        Raises:
          ValueError: as `datasets`; more bad records than may be left out.
        """
        found = self.datasets(specs, split, count)
        held = [spec for spec in specs if any(spec.name in one.fields for one in found)]
        sizes = [min(count or len(one.source), len(one.source)) for one in found]
        batches = pipeline.one_pass(
            found,
            held,
            batch_size=sum(sizes),
            num_records=count,
            left_out=LeftOutLog(self.max_left_out_records),
        )
        read: tuple[Any, Any] = next(batches)
        batch, valid = read
        places = [(one, number) for one, size in enumerate(sizes) for number in range(size)]
        kept = [place for place, is_good in zip(places, valid, strict=True) if is_good]
        return Records(
            keys=[key(found[one].name, split, number) for one, number in kept],
            tokens={
                spec.name: {name: array[valid] for name, array in batch[spec.name].items()}
                for spec in held
            },
            fields=self._raw_fields(specs, split, count, kept),
        )

    def _raw_fields(
        self,
        specs: Sequence[ModalitySpec],
        split: str,
        count: int,
        places: Sequence[tuple[int, int]],
    ) -> dict[str, Any]:
        """Raw fields of some records (data set, number), those that all of them have."""
        if self.is_raw:
            every = in_memory.Rows(self._raw_rows(specs, split, count))
            rows = [every[number] for _, number in places]
        else:
            raw = [_raw_beside(group, split) for group in self.groups]
            whole = [one for one in raw if one is not None]
            if len(whole) < len(raw):
                return {}
            rows = [whole[one][number] for one, number in places]
        everywhere = [name for name in rows[0] if all(name in row for row in rows)]
        return {name: run_phases.stack([row[name] for row in rows]) for name in everywhere}

    @functools.cache  # noqa: B019 - one object per command, of a few hundred records
    def _raw_rows(
        self, specs: Sequence[ModalitySpec], split: str, count: int
    ) -> list[dict[str, Any] | ValueError]:
        """Records, cropped as for training, or why one of them cannot be used."""
        (group,) = self.groups
        source = sources.open_source(group["source"], split, group["arguments"])
        limit = min(group["num_records"].get(split, 0) or len(source), len(source))
        limit = min(count or limit, limit)
        if not limit:
            raise ValueError(f"source {group['source']!r}: split {split!r} has no records")
        rows = sources.read_records(source, range(limit), group["source"])
        crops = policy.make(group.get("crops", {}))
        held = _held(specs, rows)
        fields = sorted({spec.source for spec in held})

        def cropped(number: int, row: Mapping[str, Any]) -> dict[str, Any]:
            crop = crops.crop_one(dict(row), number, fields, 0, held) if crops else {}
            return {**row, **crop}

        return [
            row if isinstance(row, ValueError) else left_out.attempt(cropped, number, row)
            for number, row in enumerate(rows)
        ]

    def _encoded(
        self, specs: Sequence[ModalitySpec], rows: Sequence[dict[str, Any] | ValueError]
    ) -> Dataset:
        if self.tokenizers is None:
            raise ValueError("raw records need tokenizers: --tokenizers=FOLDER")
        (group,) = self.groups
        held = _held(specs, rows)
        encoded: list[dict[str, Any] | ValueError] = [
            row if isinstance(row, ValueError) else {} for row in rows
        ]
        for spec in held:
            encode, _ = encoders.make_encoder(spec, self.tokenizers, group["seed"])
            good = {n: dict(row) for n, row in enumerate(rows) if not isinstance(row, ValueError)}
            for number, found in zip(good, encode([*good.values()], [*good]), strict=True):
                before = encoded[number]
                if not isinstance(before, ValueError):
                    encoded[number] = found if isinstance(found, ValueError) else before | found
        names = [spec.name for spec in held]
        source = in_memory.Rows(encoded)
        return Dataset(name=group["source"], source=source, fields={name: name for name in names})


def key(dataset: str, split: str, number: int) -> str:
    """Name of a record."""
    return f"{dataset}/{split}/{number:06}"


def number_of(key: str) -> int:
    """Number of the record in its data set."""
    return int(key.rpartition("/")[2])


def _held(
    specs: Sequence[ModalitySpec], rows: Sequence[Mapping[str, Any] | ValueError]
) -> list[ModalitySpec]:
    """Modalities whose raw field all good records have.

    Raises:
      ValueError: none is good; says why the first is not.
    """
    good = [row for row in rows if not isinstance(row, ValueError)]
    if not good:
        raise ValueError(f"none of {len(rows)} records can be used; the first: {rows[0]}")
    return [spec for spec in specs if all(spec.source in row for row in good)]


def _raw_beside(group: Mapping[str, Any], split: str) -> sources.Source | None:
    """Raw records of a data set of token shards; None where its rows are not those of the tokens.

    They are others where some were left out, or where tokens are of crops.
    """
    if DIRECTORY not in group["arguments"]:
        return None
    folder = epath.Path(group["arguments"][DIRECTORY]).parent / run_folder.RAW
    if not shards.manifest_path(folder, split).exists():
        return None
    raw = sources.open_source("token_shards", split, {DIRECTORY: folder})
    tokens = sources.open_source(group["source"], split, group["arguments"])
    same = len(raw) == len(tokens) and settings.SETTINGS not in tokens[0]
    return raw if same else None


def of_config(
    config: ml_collections.ConfigDict,
    tokenizers: epath.Path | None,
    max_left_out_records: int = 0,
) -> EvalData:
    """The data that a config of configs/data describes: tokens, or with `tokenize` raw records.

    Args:
      max_left_out_records: see `EvalData`.

    Raises:
      ValueError: a config of something else.
    """
    group = config_lib.plain(config)
    if "source" not in group or not ("fields" in group or "modalities" in group):
        raise ValueError("--data names no data set: expected a config of configs/data")
    return EvalData(
        groups=(group,), tokenizers=tokenizers, max_left_out_records=max_left_out_records
    )


def choose(
    source: epath.PathLike,
    config: ml_collections.ConfigDict | None,
    tokenizers: epath.PathLike | None,
) -> EvalData:
    """The data of a command: of `config` where it names some, else those of the run.

    As many bad records may be left out as in the training of the run.

    Args:
      tokenizers: folder of those that encode raw records; None: beside the run.

    Raises:
      ValueError: a model that is no run, and no config.
    """
    own = config_of_run(source)
    if config is not None:
        folder = epath.Path(tokenizers).expanduser() if tokenizers else tokenizers_of(source)
        return of_config(config, folder, own.get("max_left_out_records", 0) if own else 0)
    if own is None:
        raise ValueError(f"{source} is no run folder, whose data are known: name some with --data")
    return of_run(source, own)


def from_description(
    groups: Sequence[Mapping[str, Any]], tokenizers: epath.Path | None
) -> EvalData:
    """What `EvalData.describe` described."""
    return EvalData(groups=tuple(groups), tokenizers=tokenizers)


def rooted(group: Mapping[str, Any]) -> dict[str, Any]:
    """A described data set with its paths from the root."""
    arguments = {
        name: os.fspath(io.absolute(value)) if name in FOLDERS and value else value
        for name, value in group.get("arguments", {}).items()
    }
    return {**group, "arguments": arguments}


def config_of_run(source: epath.PathLike) -> ml_collections.ConfigDict | None:
    """The config of the training in a run folder; None where there is none, as of a checkpoint."""
    folder = epath.Path(source).expanduser()
    trunk = folder / run_folder.TRUNK if (folder / run_folder.TRUNK).is_dir() else folder
    path = trunk / "config.json"
    if not path.exists():
        return None
    stored = {key: value for key, value in io.read_json(path).items() if key != "place"}
    if "task" not in stored:  # of a published checkpoint, which says what the model is
        return None
    return config_lib.from_json(upgrades.upgrade_config(stored))


def of_run(source: epath.PathLike, config: ml_collections.ConfigDict) -> EvalData:
    """The data of a run: where its config says, else in the folder `data` of the run folder.

    Raises:
      ValueError: it is at neither place.
    """
    folder = epath.Path(source).expanduser()
    run = folder if (folder / run_folder.TRUNK).is_dir() else folder.parent
    groups = []
    for group in config_lib.plain(config.data):
        arguments = dict(group["arguments"])
        written = arguments.get(DIRECTORY)
        if written is not None and not epath.Path(written).is_dir():
            if not (run / run_folder.DATA).is_dir():
                raise ValueError(
                    f"the data of {folder} are gone: neither {written} nor {run / run_folder.DATA} "
                    "is there; name others with --data"
                )
            arguments[DIRECTORY] = str(run / run_folder.DATA)
        groups.append({**group, "arguments": arguments})
    return EvalData(
        groups=tuple(groups),
        tokenizers=tokenizers_of(folder),
        max_left_out_records=config.get("max_left_out_records", 0),
    )


def tokenizers_of(source: epath.PathLike) -> epath.Path | None:
    """The folder of the tokenizers of a run or of one training; None where there is none."""
    folder = epath.Path(source).expanduser()
    for place in (folder / run_folder.TOKENIZERS, folder.parent / run_folder.TOKENIZERS):
        if place.is_dir():
            return place
    return None


def masking_of(
    data: EvalData, model: FourM, config: ml_collections.ConfigDict | None
) -> Masking | None:
    """How a validation loss masks: the mixtures of the data, the slots of the training."""
    mixtures = [group.get("mixture") for group in data.groups]
    if config is not None and not all(mixtures) and len(config.data) == len(mixtures):
        mixtures = [one.get("mixture") for one in config_lib.plain(config.data)]
    if not all(mixtures):
        return None
    own = {spec.name for spec in model.modalities}
    slots = config.masking if config is not None else {}
    return Masking(
        mixture=mixture.make_mixture(
            model.modalities, [_only(one, own) for one in mixtures if one is not None]
        ),
        num_inputs=slots.get("num_inputs", PUBLISHED_SLOTS),
        num_targets=slots.get("num_targets", PUBLISHED_SLOTS),
        budget=slots.get("budget", "fill"),
    )


def _only(group: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    """The part of a masking mixture that is about these modalities."""
    return {
        key: {name: part for name, part in value.items() if name in names}
        if isinstance(value, Mapping)
        else value
        for key, value in group.items()
    }


def reader(data: EvalData, generator: Generator, split: str) -> Any:
    """`Context.read` of a split: training records are those of the split "train"; both are kept."""
    kept: dict[tuple[str, int], Records] = {}

    def read(which: str, count: int) -> Records:
        place = ("train" if which == "train" else split, count)
        if place not in kept:
            kept[place] = data.read(generator.model.modalities, *place)
        return kept[place]

    return read
