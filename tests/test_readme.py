"""The recipes of the README, executed as they stand there."""

import importlib
import pathlib
import re
import sys
import types

import jax
import numpy as np
import pytest

import configs.data.scenes
import configs.scenes
from configs import fourm
from configs.data import coco_captions
from fourm_jax import tokenizers
from fourm_jax.modalities import registry
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.tokenizers import base
from fourm_jax.train import loop
from fourm_jax.utils import config as config_lib

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
ONE = jax.devices()[:1]  # half the compilation


def recipe(name: str) -> str:
    """The first Python block after **name**."""
    return re.search(rf"\*\*{name}\*\*.*?```python\n(.*?)```", README, re.DOTALL).group(1)


@pytest.mark.parametrize("name", ["A modality", "A tokenizer", "A dataset"])
def test_a_recipe_has_at_most_15_lines(name):
    assert len(recipe(name).splitlines()) <= 15


def test_the_recipe_of_a_modality_trains_with_it(monkeypatch, tmp_path):
    entry = eval(recipe("A modality"), {"ModalitySpec": ModalitySpec})
    monkeypatch.setitem(registry.FAMILIES, "scenes", (*registry.SCENES, entry))
    try:
        importlib.reload(configs.data.scenes)
        importlib.reload(configs.scenes)
        config = configs.scenes.get_config("runlocal")
        config = config_lib.override(config, {"num_steps": 2, "checkpoint_every": 0})
        result = loop.train(config, tmp_path, show_progress=False, devices=ONE)
    finally:
        monkeypatch.undo()
        importlib.reload(configs.data.scenes)
        importlib.reload(configs.scenes)
    assert result.metrics[f"loss/{entry.name}"] > 0


def test_the_recipe_of_a_tokenizer_is_found_by_name_and_keeps_the_contract(monkeypatch, tmp_path):
    (tmp_path / "one_code.py").write_text(recipe("A tokenizer"))
    monkeypatch.setattr(tokenizers, "__path__", [*tokenizers.__path__, str(tmp_path)])
    assert "one_code" in base.families()
    module = base.build("one_code", base.get("one_code").tiny()["vector"])
    raw = np.ones((2, 6), np.float32)
    variables = module.init(jax.random.key(0), raw)
    ids = module.apply(variables, raw, method="encode")
    assert ids.shape == (2, 1)
    assert module.apply(variables, ids, method="decode").shape == raw.shape
    sys.modules.pop("fourm_jax.tokenizers.one_code")


def test_the_recipe_of_a_dataset_trains_in_a_mixture(tmp_path):
    recipe_module = types.ModuleType("recipe")
    exec(recipe("A dataset"), recipe_module.__dict__)
    both = (recipe_module.get_config("runlocal"), coco_captions.get_config("runlocal,weight=0.3"))
    names = tuple(both[0].fields)
    outputs = tuple(name for name in names if name != "rgb@224")
    values = {"lr": 1e-3, "clip_norm": 1.0, "maskings_per_record": 1}
    config = fourm.make(names, outputs, both, values, runlocal=True)
    config = config_lib.override(config, {"num_steps": 2, "checkpoint_every": 0})
    result = loop.train(config, tmp_path, show_progress=False, devices=ONE)
    assert int(result.state.step) == 2


def test_the_configs_named_in_the_readme_exist():
    for path in re.findall(r"--config=(configs/\S+)", README):
        assert config_lib.load(str(ROOT / path)), path
