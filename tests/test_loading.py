"""A run folder becomes a generator, or one line that says what is missing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fourm_jax import loading
from fourm_jax.generate import state as states
from fourm_jax.models import from_config, trained
from fourm_jax.tokenizers.text import TextTokenizer
from fourm_jax.utils import config as config_lib
from tests.train import tiny


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A folder with a trunk of random parameters, which stands for its checkpoint."""
    config = tiny.trunk()
    names = ("rgb", "caption")
    with config.unlocked():
        config.modalities = {
            "family": "scenes", "inputs": names, "outputs": names[1:], "overrides": {},
        }  # fmt: skip
    model = from_config.make_model(config)
    state = states.create({"caption": {"ids": np.ones((1, 2))}}, [], specs=model.modalities)
    targets = states.sequence_targets(1, jnp.ones((1, 3), jnp.int32), jnp.ones(1, jnp.int32))
    tokens = states.token_batch([state], [targets], model.modalities)
    shapes = jax.eval_shape(model.init, jax.random.key(0), tokens)["params"]
    found = trained.Trained(
        step=1,
        params=jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.1), shapes),
        model_state={},
        description=trained.Description(config=config_lib.to_json(config), modalities={}),
    )
    monkeypatch.setattr(trained, "load", lambda workdir: found)
    (tmp_path / "trunk").mkdir()
    return tmp_path


def test_a_missing_tokenizer_is_named(run):
    with pytest.raises(ValueError, match=r"no tokenizer at .*text for modality 'caption'"):
        loading.load_generator(run)


def test_a_run_folder_generates(run):
    TextTokenizer.train(["a red cone"], vocab_size=4608).save(run / "tokenizers" / "text")
    generator = loading.load_generator(run)
    done = generator.generate({"caption": ["a red [S_1]"]}, ["caption"])
    assert done.decoded["caption"].texts[0].startswith("a red")


def test_a_folder_without_trunk_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no trained trunk in .*trunk; found: \[\]"):
        loading.load_generator(tmp_path)
