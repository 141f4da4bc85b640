"""Fuzz targets of models: safetensors files, cards, configs, text tokenizer files."""

import json
import pathlib
import random
import shutil
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from fourm_jax.convert import checkpoint, fourm, safetensors_io, tokenizer_config
from fourm_jax.tokenizers import base, card, mlp, store, text
from fourm_jax.utils import errors, io
from tests import golden_cases
from tests.stress import mutators
from tests.stress.fuzz import Target

CONFIG, TRUNK = "config.json", "fm_registers_causal"
# Strings as YAML in the header of a published file.
YAML = ("[" * 3000, "{a: &x [*x]}", "!!binary x", "2001-99-99", "? a", "- - - -", "0b2", "1_0")
YAML += ("<<: 1", "%YAML 9", "\t", "'", "0o9", "60:99", ".inf", "~", "{[a]: b}", "!!python/x y")
SPLIT = {"type": "Split", "behavior": "Isolated", "invert": False}
TEXT_PARTS: dict[str, tuple[Any, ...]] = {
    "normalizer": (
        {"type": "Sequence", "normalizers": []},
        {"type": "Replace", "pattern": {"Regex": "("}, "content": "x"},
        {"type": "Precompiled", "precompiled_charsmap": "AAAA"},
        {"type": "Prepend", "prepend": ""},
    ),
    "pre_tokenizer": (
        {**SPLIT, "pattern": {"Regex": "a*"}},
        {
            "type": "Split",
            "pattern": {"Regex": r"[\x{110000}]"},
            "behavior": "Isolated",
            "invert": 0,
        },
        {
            "type": "Split",
            "pattern": {"Regex": r"\A[\x{d800}]"},
            "behavior": "Isolated",
            "invert": 1,
        },
        {"type": "Metaspace", "replacement": "", "add_prefix_space": True},
        {"type": "FixedLength", "length": 0},
    ),
    "decoder": (
        {"type": "Strip", "content": "a", "start": 10**6, "stop": 10**6},
        {"type": "ByteFallback"},
    ),
    "post_processor": (
        {"type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {}},
    ),
    "truncation": (
        {"direction": "Right", "max_length": 0, "strategy": "LongestFirst", "stride": 5},
    ),
    "model": (
        {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"]]},
        {"type": "Unigram", "unk_id": 5, "vocab": []},
        {"type": "WordLevel", "vocab": {"a": 4294967295}, "unk_token": "x"},
    ),
}


def targets(folder: pathlib.Path) -> Iterator[Target]:
    """One target per reader."""
    yield from _safetensors(folder)
    yield from _metadata()
    yield from _cards(folder)
    yield from _configs(folder)
    yield from _text(folder)


def _safetensors(folder: pathlib.Path) -> Iterator[Target]:
    path = folder / "x.safetensors"
    arrays = {"a": np.ones((2, 3), np.float32), "b": np.arange(8, dtype=np.uint8)}
    announced = {name: (array.dtype, array.shape) for name, array in arrays.items()}
    safetensors_io.write(path, announced, arrays.items(), {"dim": "8", "n": "['a', 'b']"})

    def read(data: bytes) -> None:
        path.write_bytes(data)
        file = safetensors_io.SafeFile(path)
        for name in file.names:
            file.read(name)
        safetensors_io.parse_metadata(file.metadata, path)

    seeds, header = (path.read_bytes(),), mutators.damage_json_header
    yield Target(name="safetensors/bytes", seeds=seeds, read=read)
    yield Target(name="safetensors/header", seeds=seeds, read=read, mutate=header)


def _metadata() -> Iterator[Target]:
    def mutate(rng: random.Random, data: bytes) -> bytes:
        return rng.choice(YAML).encode() if rng.random() < 0.3 else mutators.damage(rng, data)

    def read(data: bytes) -> None:
        safetensors_io.parse_metadata({"dim": data.decode("utf-8", "replace")})

    seeds = (b"['a', 'b']", b"{a: [1, 2], b: None}", b"1.0e-05")
    yield Target(name="safetensors/metadata", seeds=seeds, read=read, mutate=mutate)


def _cards(folder: pathlib.Path) -> Iterator[Target]:
    arguments = mlp.tiny()["vector_one_code"]
    directory = folder / "tokenizer"
    module = base.build("mlp", arguments)
    abstract = base.abstract_variables(module)
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), abstract)
    base.save(directory, module, variables, base.make_card("t", "mlp", arguments))

    def read_card(data: bytes) -> None:
        (directory / store.CARD).write_bytes(data)
        base.load(directory)

    good_card = (directory / store.CARD).read_bytes()
    change = mutators.damage_json
    yield Target(name="card", seeds=(good_card,), read=read_card, mutate=change, rounds=12)

    def read_weights(data: bytes) -> None:
        (directory / store.CARD).write_bytes(good_card)
        (directory / store.WEIGHTS).write_bytes(data)
        store.read(directory)

    yield Target(
        name="card/weights",
        seeds=((directory / store.WEIGHTS).read_bytes(),),
        read=read_weights,
        mutate=mutators.damage_json_header,
    )


def _configs(folder: pathlib.Path) -> Iterator[Target]:
    change = mutators.damage_json
    trunk = folder / "trunk"
    shutil.copytree(golden_cases.shipped("fm") / TRUNK, trunk)
    overrides = json.loads((trunk / "modality_overrides.json").read_text())["overrides"]

    def read_trunk(data: bytes) -> None:
        (trunk / CONFIG).write_bytes(data)
        fourm.open_checkpoint(trunk, overrides=overrides)

    seeds = ((trunk / CONFIG).read_bytes(),)
    yield Target(name="config/trunk", seeds=seeds, read=read_trunk, mutate=change, rounds=12)

    converted = folder / "converted"
    checkpoint.convert(golden_cases.shipped("fm") / TRUNK, converted, overrides=overrides)

    def read_converted(data: bytes) -> None:
        (converted / checkpoint.TRUNK).write_bytes(data)
        checkpoint.load(converted)

    seeds = ((converted / checkpoint.TRUNK).read_bytes(),)
    yield Target(
        name="config/converted", seeds=seeds, read=read_converted, mutate=change, rounds=12
    )
    yield from _tokenizer_configs(folder)


def _tokenizer_configs(folder: pathlib.Path) -> Iterator[Target]:
    change, golden = mutators.damage_json, golden_cases.shipped("tokenizers")
    mlp_folder = folder / "mlp"
    shutil.copytree(golden / "mlp_lucid_euclid", mlp_folder)

    def read_mlp(data: bytes) -> None:
        (mlp_folder / CONFIG).write_bytes(data)
        checkpoint.load(mlp_folder)

    seeds = ((mlp_folder / CONFIG).read_bytes(),)
    yield Target(name="config/mlp", seeds=seeds, read=read_mlp, mutate=change, rounds=8)
    # Backbones of other sizes than any published one are known by name to whoever asks only.
    presets = json.loads((golden / "vqvae_sam_outconv" / "meta.json").read_text())["tiny_presets"]

    def read_arguments(data: bytes) -> None:
        config = io.parse_json(data, CONFIG)
        with errors.described_by(CONFIG):
            family, arguments = tokenizer_config.arguments_of(config, presets=presets)
            card.check_arguments(arguments, CONFIG)
            base.build(family, arguments)

    config = json.loads((golden / "vqvae_sam_outconv" / CONFIG).read_text())
    diffusion = {**config, "n_channels": 3, "dec_type": "unet_patched", "scheduler": "ddim"}
    diffusion |= {"num_train_timesteps": 1000, "masked_cfg": True, "masked_cfg_low": 0}
    files = [json.dumps(one).encode() for one in (config, diffusion)]
    yield Target(name="config/vit", seeds=files, read=read_arguments, mutate=change)


def _text(folder: pathlib.Path) -> Iterator[Target]:
    directory = folder / "text"
    texts = ["a dog on the left of a red ball"]
    made = text.TextTokenizer.train(texts, vocab_size=90, num_sentinels=5, num_bins=5)
    made.save(directory)

    def read(data: bytes) -> None:
        (directory / store.TEXT).write_bytes(data)
        tokenizer = text.TextTokenizer.load(directory)
        ids, _ = tokenizer.encode_sequence("a dog, v0=3 [EOS] left", max_tokens=16)
        tokenizer.decode(ids)
        tokenizer.decode_content(ids)

    def mutate(rng: random.Random, data: bytes) -> bytes:
        if rng.random() < 0.5:
            return mutators.damage_json(rng, data)
        value = json.loads(data)
        part = rng.choice(list(TEXT_PARTS))
        value[part] = rng.choice((*TEXT_PARTS[part], mutators.change(rng, value[part])))
        return json.dumps(value).encode()

    content = (directory / store.TEXT).read_bytes()
    yield Target(name="text/tokenizer", seeds=(content,), read=read, mutate=mutate)

    def read_card(data: bytes) -> None:
        (directory / store.TEXT).write_bytes(content)
        (directory / store.CARD).write_bytes(data)
        text.TextTokenizer.load(directory)

    seeds = ((directory / store.CARD).read_bytes(),)
    yield Target(name="text/card", seeds=seeds, read=read_card, mutate=mutators.damage_json)
