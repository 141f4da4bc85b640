"""What the configs of data sets are made of: tokens to train on, and how those tokens are made.

Every `configs/data/NAME.py` is one data set. `get_config` returns its tokens, an entry of
`config.data`; with `tokenize` what `experiments.tokenize_dataset` needs to make them; with
`tokenizer=NAME`, where it trains its own, the config of one tokenizer.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from fourm_jax.data.storage import shards
from fourm_jax.utils import config as config_lib

SPLITS = {"train": "train", "test": "test"}
ALL = {"train": 0, "test": 0}  # num_records 0: all there are


def tokens(
    name: str,
    modalities: Sequence[str],
    mixture: Mapping[str, Any],
    *,
    data: str,
    weight: float = 1.0,
    fields: Mapping[str, str] | None = None,
) -> ml_collections.ConfigDict:
    """Return a data set of token shards.

    Args:
      name: of the data set; names its random stream too.
      modalities: what a record holds.
      mixture: how samples are masked, see `masking.mixture.make_mixture`.
      data: folder of the shards.
      weight: share of the samples, relative to other data sets.
      fields: {modality: field of the shards}, default: fields are named like the modalities.
    """
    arguments = {"directory": data}
    return _dataset(
        name, "token_shards", arguments, fields or _same(modalities), mixture, weight=weight
    )


def exist(directory: str) -> bool:
    """Whether a folder has the shards of a data set to train on."""
    return shards.manifest_path(directory, "train").exists()


def fake_tokens(
    name: str,
    modalities: Sequence[str],
    mixture: Mapping[str, Any],
    *,
    family: str,
    weight: float = 1.0,
    **arguments: Any,
) -> ml_collections.ConfigDict:
    """Return a data set of random tokens, to try a config without data.

    Args:
      family: of the modalities.
      arguments: further ones of `data.sources.fake`: "num_records", "overrides".
    """
    arguments = {"family": family, "names": tuple(modalities), **arguments}
    return _dataset(name, "fake", arguments, _same(modalities), mixture, weight=weight)


def tokenize(
    source: str,
    arguments: Mapping[str, Any],
    modalities: Sequence[str],
    *,
    family: str = "fourm",
    num_records: Mapping[str, int] = ALL,
    records_per_shard: int = 4_096,
    seed: int | None = 0,
    crops: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> ml_collections.ConfigDict:
    """Return how raw records become token shards, for `experiments.tokenize_dataset`.

    Args:
      source: of `data.sources`, with its arguments.
      modalities: what is written, of this family.
      num_records: per split; 0 is all.
      seed: of the draws that texts make (order, choice of one of several); None: no draws.
      crops: of `crops`; None: records as they are.
      overrides: of the modalities, see `modalities.registry.resolve`.
    """
    config = {
        "source": source,
        "arguments": dict(arguments),
        "num_records": dict(num_records),
        "records_per_shard": records_per_shard,
        "seed": seed,
        "modalities": {
            "family": family,
            "names": tuple(modalities),
            "overrides": dict(overrides or {}),
        },
    }
    if crops:
        config["crops"] = dict(crops)
    return ml_collections.ConfigDict(config).lock()


def crops(num_crops: int, size: int) -> dict[str, Any]:
    """Return crops of each record: the centred square, then random ones; 0: records as they are."""
    return {
        "num_crops": num_crops,
        "size": (size, size),
        "scale": (0.8, 1.0),
        "ratio": (0.75, 1.3333),
        "flip_probability": 0.5,
        "seed": 0,
    }


def from_tfds(
    arg: str | None,
    name: str,
    *,
    dataset: str,
    fields: Mapping[str, tuple[str, ...]],
    modalities: Sequence[str],
    mixture: Mapping[str, Any],
    splits: Mapping[str, str] = SPLITS,
    family: str = "fourm",
) -> ml_collections.ConfigDict:
    """Return the config of a prepared TFDS data set, whatever `arg` asks for.

    Arguments: data (folder of the shards), weight (share of the samples), runlocal (random tokens);
    tokenize, with data_dir (where TFDS keeps its data sets, if not where it does by default) and
    num_crops (of every picture, 4; with 0 it is its centred square alone).

    Args:
      dataset: its name in TFDS.
      fields: {record field: (reader, features...)}, see `data.sources.tfds_fields`.
      modalities: what becomes of the fields.
      mixture: how samples are masked; what it says about other modalities is left out.
      splits: {"train", "test"} -> split of TFDS.
    """
    args = config_lib.parse_arg(
        arg,
        data=f"runs/{name}/data",
        weight=1.0,
        runlocal=False,
        tokenize=False,
        data_dir="",
        num_crops=4,
    )
    if args.tokenize:
        arguments = {"dataset": dataset, "splits": dict(splits), "fields": fields}
        arguments["data_dir"] = args.data_dir
        has_crops = args.num_crops > 0 and "rgb" in fields
        return tokenize(
            "tfds",
            arguments if has_crops else {**arguments, "image_size": 224},
            modalities,
            family=family,
            crops=crops(args.num_crops, 224) if has_crops else None,
        )
    mixture = only(mixture, modalities)
    if args.runlocal:
        return fake_tokens(
            name, modalities, mixture, family=family, weight=args.weight, num_records=64
        )
    return tokens(name, modalities, mixture, data=args.data, weight=args.weight)


def only(mixture: Mapping[str, Any], modalities: Sequence[str]) -> dict[str, Any]:
    """Return the part of a mixture that is about these modalities."""
    per_modality = ("input_alphas", "target_alphas", "keep")
    return {
        key: {name: part for name, part in value.items() if name in modalities}
        if key in per_modality
        else value
        for key, value in mixture.items()
    }


def _same(modalities: Sequence[str]) -> dict[str, str]:
    return {name: name for name in modalities}


def _dataset(
    name: str,
    source: str,
    arguments: Mapping[str, Any],
    fields: Mapping[str, str],
    mixture: Mapping[str, Any],
    *,
    weight: float,
) -> ml_collections.ConfigDict:
    return ml_collections.ConfigDict(
        {
            "name": name,
            "source": source,
            "arguments": dict(arguments),
            "fields": dict(fields),
            "weight": weight,
            "mixture": dict(mixture),
        }
    )
