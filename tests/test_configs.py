"""Every config builds, and runs two steps as `:runlocal` wants it."""

import importlib
import pathlib

import jax
import ml_collections
import pytest

from configs.data import tfds
from fourm_jax.data.sources import tfds_fields
from fourm_jax.modalities import registry
from fourm_jax.train import loop, run_config
from fourm_jax.utils import config as config_lib

ROOT = pathlib.Path(__file__).parents[1]
CONFIGS = ROOT / "configs"

# Configs that `python -m experiments.train` takes, with the arguments that cover them.
TRAINABLE = (
    "scenes.py:size=nano,runlocal",
    "scenes.py:size=small,runlocal",
    "digits.py:runlocal",
    "fourm.py:mix=mod21,runlocal",
    "pictures.py:runlocal",
    "tokenizers/digits.py:rgb,runlocal",
    "tokenizers/pictures.py:edge,runlocal",
    "tokenizers/scenes.py:rgb,runlocal",
    "tokenizers/scenes.py:depth,runlocal",
    "tokenizers/scenes.py:normal,runlocal",
    "tokenizers/scenes.py:semseg,runlocal",
    "tokenizers/scenes.py:edge,runlocal",
    "tokenizers/scenes.py:feature,runlocal",
    "tokenizers/scenes.py:feature_global,runlocal",
)


def load(path: str) -> ml_collections.ConfigDict:
    return config_lib.load(str(CONFIGS / path))


@pytest.mark.parametrize("path", TRAINABLE)
def test_a_config_trains_two_steps_with_runlocal(path, tmp_path):
    config = load(path).unlock()
    config.num_steps, config.log_every, config.checkpoint_every = 2, 1, 0
    one = jax.devices()[:1]  # half the compilation; tests/train compare one with eight
    result = loop.train(config.lock(), tmp_path, show_progress=False, devices=one)
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
        "tokenizers/scenes.py:depth",
    ],
)
def test_a_config_states_only_keys_that_its_task_has(path):
    config = load(path)
    run_config.check(config)
    assert set(config) == {*run_config.COMMON_KEYS, *run_config.TASK_KEYS[config.task]}


def test_no_trainable_config_is_left_out():
    covered = {path.split(":")[0] for path in TRAINABLE}
    for file in [*CONFIGS.glob("*.py"), *CONFIGS.glob("tokenizers/*.py")]:
        name = file.relative_to(CONFIGS).as_posix()
        if file.name == "__init__.py":
            continue
        module = importlib.import_module("configs." + name.removesuffix(".py").replace("/", "."))
        if hasattr(module, "get_config") and "task" in module.get_config():
            assert name in covered, f"add {name} to TRAINABLE"


def test_the_tfds_data_sets_mix_and_train_two_steps_with_runlocal(tmp_path):
    config = load("fourm.py:mix=mod7,runlocal").unlock()
    config.data = tuple(load(f"data/{name}.py:runlocal") for name in tfds.NAMES)
    names = tuple(sorted({name for dataset in config.data for name in dataset.fields}))
    outputs = tuple(name for name in names if name != "rgb@224")
    config.modalities = {
        "family": "fourm", "inputs": names, "outputs": outputs, "overrides": {},
    }  # fmt: skip
    config.masking.update({"num_inputs": 128, "num_targets": 128, "maskings_per_record": 1})
    config.num_steps, config.log_every, config.checkpoint_every = 2, 1, 0
    result = loop.train(config.lock(), tmp_path, show_progress=False, devices=jax.devices()[:1])
    assert int(result.state.step) == 2
    assert 0 < result.metrics["loss"] < 100


@pytest.mark.parametrize("name", tfds.NAMES)
def test_every_modality_of_a_tfds_data_set_is_made_of_a_field_that_is_read(name):
    config = load(f"pretokenize/tfds.py:{name}")
    modalities = config.modalities
    specs = registry.resolve(modalities.family, modalities.names, modalities.overrides.to_dict())
    fields = config.arguments.fields
    assert {spec.source for spec in specs} == set(fields)
    for reader, *features in fields.values():
        assert reader in tfds_fields.READERS and features
    assert ("crops" in config) == ("rgb" in fields)


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.py")), ids=lambda p: p.stem)
def test_a_config_says_what_it_is_for(path):
    assert path.name == "__init__.py" or path.read_text().lstrip().startswith('"""')


def test_an_unknown_size_is_an_error_that_names_the_allowed_ones():
    with pytest.raises(ValueError, match=r"size 'nanno', allowed: \['nano', 'small'\]"):
        load("scenes.py:size=nanno")
