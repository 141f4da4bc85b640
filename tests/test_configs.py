"""Every config builds, and runs two steps as `:runlocal` wants it."""

import importlib
import pathlib

import jax
import ml_collections
import pytest

from configs import fourm
from fourm_jax.data import datasets
from fourm_jax.data.sources import tfds_fields
from fourm_jax.modalities import registry
from fourm_jax.train import loop, run_config
from fourm_jax.utils import config as config_lib

ROOT = pathlib.Path(__file__).parents[1]
CONFIGS = ROOT / "configs"

# Configs that `python -m experiments.train` takes, with the arguments that cover them; the other
# tokenizers of the scenes are trained by test_end_to_end.py.
TRAINABLE = (
    "scenes.py:size=nano,runlocal",
    "ablation.py:runlocal",
    "modality_table.py:runlocal",
    "digits.py:runlocal",
    "fourm.py:mix=mod21,runlocal",
    "pictures.py:runlocal",
    "data/digits.py:tokenizer=rgb,runlocal",
    "data/pictures.py:tokenizer=edge,runlocal",
    "data/scenes.py:tokenizer=rgb,runlocal",
    "data/scenes.py:tokenizer=feature_global,runlocal",
)
VALUES = {"lr": 1e-3, "clip_norm": 1.0, "maskings_per_record": 1}
TWO_STEPS = {"num_steps": 2, "log_every": 1, "checkpoint_every": 0}
DATA_SETS = sorted(path.stem for path in (CONFIGS / "data").glob("[!_]*.py"))
IMPORTED = ("cc12m",)  # comes with tokens, as `experiments.import_webdataset` writes them
FROM_TFDS = [
    name
    for name in DATA_SETS
    if "datasets.from_tfds(" in (CONFIGS / "data" / f"{name}.py").read_text()
]


def load(path: str) -> ml_collections.ConfigDict:
    return config_lib.load(str(CONFIGS / path))


@pytest.mark.parametrize("path", TRAINABLE)
def test_a_config_trains_two_steps_with_runlocal(path, tmp_path):
    config = config_lib.override(load(path), TWO_STEPS)
    one = jax.devices()[:1]  # half the compilation; tests/train compare one with eight
    result = loop.train(config, tmp_path, show_progress=False, devices=one)
    assert int(result.state.step) == 2
    assert 0 < result.metrics["loss"] < 100


@pytest.mark.parametrize(
    "path",
    [
        "scenes.py",
        "scenes.py:size=small",
        "digits.py",
        "fourm.py:mix=mod7",
        "fourm.py:size=large",
        "data/scenes.py:tokenizer=depth",
    ],
)
def test_a_config_states_only_keys_that_its_task_has(path):
    config = load(path)
    run_config.check(config)
    keys = (*run_config.COMMON_KEYS, *run_config.READING, *run_config.TASK_KEYS[config.task])
    others = {*run_config.NEWER, "loss_weights", "z_loss", "best_metric", "best_is"}
    assert set(config) - others == set(keys)


def test_no_trainable_config_is_left_out():
    covered = {path.split(":")[0] for path in TRAINABLE}
    for file in CONFIGS.glob("*.py"):
        module = importlib.import_module(f"configs.{file.stem}")
        if hasattr(module, "get_config") and "task" in module.get_config():
            assert file.name in covered, f"add {file.name} to TRAINABLE"
    for name in DATA_SETS:
        if hasattr(importlib.import_module(f"configs.data.{name}"), "TOKENIZERS"):
            assert f"data/{name}.py" in covered, f"add a tokenizer of {name} to TRAINABLE"


@pytest.mark.parametrize("size", ["nano", "base"])
def test_configs_of_pictures_read_the_users_pictures_with_runlocal_where_they_are_built(
    size, tmp_path
):
    arguments = f"size={size},runlocal"
    assert load(f"pictures.py:{arguments},data={tmp_path}").data[0].source == "fake"
    tokenizer = f"data/pictures.py:{arguments},tokenizer=edge,raw={tmp_path}"
    assert load(tokenizer).data[0].source == "digits"

    (tmp_path / "train.json").write_text("{}")
    trunk = load(f"pictures.py:{arguments},data={tmp_path}")
    assert (trunk.data[0].source, trunk.data[0].arguments.directory) == (
        "token_shards",
        str(tmp_path),
    )
    assert trunk.modalities.overrides.to_dict() == {} and trunk.num_steps == 4
    assert load(tokenizer).data[0].arguments.directory == str(tmp_path)
    assert load(tokenizer).num_steps == 4


def test_data_sets_of_one_family_mix_and_train_two_steps_with_runlocal(tmp_path):
    mixed = tuple(load(f"data/{name}.py:runlocal,weight=0.5") for name in FROM_TFDS)
    names = tuple(sorted({name for dataset in mixed for name in dataset.fields}))
    outputs = tuple(name for name in names if name != "rgb@224")
    config = fourm.make(names, outputs, mixed, VALUES, runlocal=True)
    config = config_lib.override(config, TWO_STEPS)
    result = loop.train(config, tmp_path, show_progress=False, devices=jax.devices()[:1])
    assert int(result.state.step) == 2
    assert 0 < result.metrics["loss"] < 100


@pytest.mark.parametrize("name", DATA_SETS)
def test_a_data_set_is_one_config_of_its_tokens_and_of_how_they_are_made(name):
    tokens = load(f"data/{name}.py:data=DIR,weight=0.5")
    assert tokens.arguments.directory == "DIR"
    assert tokens.weight == 0.5
    masked = {*tokens.mixture.input_alphas, *tokens.mixture.target_alphas}
    assert masked <= set(tokens.fields)
    if name in IMPORTED:
        return
    made = load(f"data/{name}.py:tokenize")
    assert set(made.modalities.names) == set(tokens.fields)
    assert {"train", "test"} == set(made.num_records)
    datasets.get_source(made.source)


@pytest.mark.parametrize("name", FROM_TFDS)
def test_every_modality_of_a_tfds_data_set_is_made_of_a_field_that_is_read(name):
    config = load(f"data/{name}.py:tokenize")
    modalities = config.modalities
    specs = registry.resolve(modalities.family, modalities.names, modalities.overrides.to_dict())
    fields = config.arguments.fields
    assert {spec.source for spec in specs} == set(fields)
    for reader, *features in fields.values():
        assert reader in tfds_fields.READERS and features
    assert ("crops" in config) == ("rgb" in fields)


def test_a_data_set_of_pictures_captions_and_boxes_is_one_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text((CONFIGS / "data" / "coco_captions.py").read_text().replace("coco", "mine"))
    made = config_lib.load(f"{path}:tokenize,num_crops=2")
    assert made.arguments.dataset == "mine_captions/2014"
    assert made.crops.num_crops == 2
    tokens = config_lib.load(f"{path}:runlocal")
    assert (tokens.name, tokens.source) == ("mine_captions", "fake")
    assert set(tokens.fields) == {"rgb@224", "tok_rgb@224", "caption", "det"}


def test_configs_are_made_of_functions_and_never_overwrite_each_other():
    for path in CONFIGS.rglob("*.py"):
        assert ".unlock()" not in path.read_text(), path
        assert ".update(" not in path.read_text(), path


def test_a_published_run_sees_500_billion_tokens_after_a_warm_up_of_10():
    mod7, mod21 = load("fourm.py:mix=mod7"), load("fourm.py:mix=mod21")
    assert (mod7.num_steps, mod7.optimizer.warmup_steps) == (239_120, 4_769)
    assert (mod21.num_steps, mod21.optimizer.warmup_steps) == (239_218, 4_769)


def test_published_sizes_but_the_largest_are_compiled_without_a_loop_over_blocks():
    base, large = (load(f"fourm.py:size={size}").model for size in ("base", "large"))
    assert base.scan_unroll == large.scan_unroll == 0
    local = load("fourm.py:size=base,runlocal").model
    assert local.scan_unroll == load("fourm.py:size=xlarge").model.scan_unroll == 1


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.py")), ids=lambda p: p.stem)
def test_a_config_says_what_it_is_for(path):
    assert path.name == "__init__.py" or path.read_text().lstrip().startswith('"""')


def test_an_unknown_size_is_an_error_that_names_the_allowed_ones():
    with pytest.raises(ValueError, match="size 'nanno'; did you mean 'nano'"):
        load("scenes.py:size=nanno")
