"""`fourm_jax.load` takes whatever holds a model; what is missing is said when it is needed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fourm_jax
from fourm_jax import loading
from fourm_jax.contracts import TokenBatch
from fourm_jax.convert import checkpoint as convert
from fourm_jax.generate import state as states
from fourm_jax.jobs import scrub
from fourm_jax.models import from_config, trained
from fourm_jax.tokenizers.text import TextTokenizer
from fourm_jax.train import checkpoint
from fourm_jax.train.state import TrainState
from fourm_jax.utils import config as config_lib
from tests import golden_cases
from tests.convert import fm_cases
from tests.jobs import untrained
from tests.train import tiny

TRUNK = golden_cases.shipped("fm") / fm_cases.SHIPPED
TOKENIZER = golden_cases.shipped("tokenizers") / "mlp_memcodes"


def save_checkpoint(workdir, config, params) -> None:
    """A checkpoint as a training of this config leaves one."""
    state = TrainState(
        step=jnp.int32(1), params=params, model_state={}, opt_state={}, ema_params=None, metrics={}
    )
    saver = checkpoint.Checkpointer(workdir)
    description = trained.Description(config=config_lib.to_json(config), modalities={})
    saver.save(state, description, 1)
    saver.close()


def some_tokens(model) -> TokenBatch:
    state = states.create({"caption": {"ids": np.ones((1, 2))}}, [], specs=model.modalities)
    targets = states.sequence_targets(1, jnp.ones((1, 3), jnp.int32), jnp.ones(1, jnp.int32))
    return states.token_batch([state], [targets], model.modalities)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder with a trunk over pixels, a grid and captions, and the text tokenizer alone."""
    folder = tmp_path_factory.mktemp("run")
    config = tiny.trunk()
    model = from_config.make_model(config)
    shapes = jax.eval_shape(model.init, jax.random.key(0), some_tokens(model))["params"]
    params = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.1), shapes)
    save_checkpoint(folder / "trunk", config, params)
    TextTokenizer.train(["a red cone"], vocab_size=4608).save(folder / "tokenizers" / "text")
    return folder


@pytest.fixture(scope="module")
def depth_tokenizer(tmp_path_factory):
    """A folder with an untrained tokenizer of the scenes' depth."""
    folder = tmp_path_factory.mktemp("tokenizers")
    untrained.save(folder, "depth", {"axes": "hw", "low": 0.5, "high": 10.0})
    return folder / "depth"


def test_a_run_folder_generates(run):
    generator = fourm_jax.load(run)
    done = generator.generate({"caption": ["a red [S_1]"]}, ["caption"])
    assert done.decoded["caption"].texts[0].startswith("a red")


def test_the_work_directory_of_its_trunk_is_the_same(run):
    generator, trunk = fourm_jax.load(run), fourm_jax.load(run / "trunk")
    assert set(trunk.tokenizers) == {"text"}
    jax.tree.map(np.testing.assert_array_equal, trunk.params, generator.params)


def test_a_missing_tokenizer_is_said_when_a_raw_signal_needs_it(run):
    generator = fourm_jax.load(run)
    depth = np.ones((1, 32, 32), np.float32)
    with pytest.raises(ValueError, match=r"tokenizer 'depth' is not at hand \(there: \['text'\]\)"):
        generator.start({"tok_depth": depth}, ["caption"])
    done = generator.generate({"caption": ["a red cone"]}, ["tok_depth"], num_steps=1)
    assert done.ids["tok_depth"].shape == (1, 64)
    with pytest.raises(KeyError, match=r"tokenizers=\{'depth': FOLDER\}"):
        done.decoded["tok_depth"]


def test_tokenizers_may_lie_elsewhere(run, depth_tokenizer):
    from_folder = fourm_jax.load(run, tokenizers=depth_tokenizer.parent)
    assert set(from_folder.tokenizers) == {"depth"}
    loaded = fourm_jax.load(depth_tokenizer)
    by_name = fourm_jax.load(run, tokenizers={"depth": loaded, "text": run / "tokenizers" / "text"})
    assert by_name.tokenizers["depth"] is loaded
    assert set(by_name.tokenizers) == {"depth", "text"}


@pytest.mark.parametrize(
    ("tokenizers", "message"),
    [
        ({"dept": "anywhere"}, "unknown tokenizer of this trunk 'dept'; did you mean 'depth'"),
        ("no/such/folder", "tokenizers='no/such/folder': no such folder"),
    ],
)
def test_tokenizers_that_the_trunk_does_not_have_are_refused(run, tokenizers, message):
    with pytest.raises(ValueError, match=message):
        fourm_jax.load(run, tokenizers=tokenizers)


def test_a_trunk_is_no_tokenizer(run):
    with pytest.raises(ValueError, match=r"tokenizer 'depth': .* is a trunk"):
        fourm_jax.load(run, tokenizers={"depth": run})


def test_a_published_trunk_is_a_generator():
    overrides = fm_cases.load(fm_cases.SHIPPED).overrides
    generator = fourm_jax.load(TRUNK, overrides=overrides, dtype="bfloat16")
    assert isinstance(generator, fourm_jax.Generator)
    assert generator.model.dtype == jnp.bfloat16
    assert generator.tokenizers == {}


def test_a_published_tokenizer_and_a_text_tokenizer_are_ready(run):
    assert fourm_jax.load(TOKENIZER).card.family == "mlp"
    text = run / "tokenizers" / "text"
    for source in (text, text / "tokenizer.json", str(text)):
        assert fourm_jax.load(source).decode(fourm_jax.load(source).encode("a red cone"))


def test_the_work_directory_of_a_tokenizer_gives_what_it_saved(tmp_path, depth_tokenizer):
    save_checkpoint(tmp_path, tiny.tokenizer(), {"x": jnp.ones(2)})
    with pytest.raises(ValueError, match="the training of a tokenizer which is not finished"):
        fourm_jax.load(tmp_path)
    (tmp_path / "tokenizer").symlink_to(depth_tokenizer)
    assert fourm_jax.load(tmp_path).card.name == "depth"


def test_an_option_that_does_not_apply_is_refused(run):
    with pytest.raises(ValueError, match="is a tokenizer; overrides is an option of trunks"):
        fourm_jax.load(TOKENIZER, overrides={})
    with pytest.raises(ValueError, match="overrides are for published trunks"):
        fourm_jax.load(run, overrides={"caption": {"max_tokens": 8}})
    with pytest.raises(ValueError, match="is a text tokenizer, which has no dtype"):
        fourm_jax.load(run / "tokenizers" / "text", dtype="float32")
    with pytest.raises(ValueError, match="dtype 'float16', allowed"):
        fourm_jax.load(run, dtype="float16")


def test_a_folder_without_a_model_says_what_it_holds(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ValueError, match=r"no model in .*; found \['notes.txt'\]"):
        fourm_jax.load(tmp_path)
    (tmp_path / "trunk" / "checkpoints").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"no checkpoint in .*checkpoints"):
        fourm_jax.load(tmp_path)


def test_shardings_place_the_parameters_of_a_run(run):
    device = jax.devices()[1]
    shapes = fourm_jax.load(run).params
    there = jax.tree.map(lambda _: jax.sharding.SingleDeviceSharding(device), shapes)
    params = fourm_jax.load(run, shardings=there).params
    assert {leaf.device for leaf in jax.tree.leaves(params)} == {device}


def test_reading_a_run_says_nothing_about_how_it_is_read(run, caplog):
    fourm_jax.load(run)
    assert "read" not in caplog.text


def test_reading_makes_no_folder(tmp_path):
    for read in (trained.load, fourm_jax.load, lambda folder: list(scrub.check(folder))):
        with pytest.raises(ValueError, match=r"no (checkpoint|model)"):
            read(tmp_path)
        assert list(tmp_path.iterdir()) == []


def test_weights_of_a_run_a_converted_trunk_and_a_tokenizer_are_named_by_what_owns_them(
    run, tmp_path
):
    assert "encoder_embedding/tokens/tok_depth" in loading.weights(run).parts
    overrides = fm_cases.load(fm_cases.SHIPPED).overrides
    convert.convert(TRUNK, tmp_path / "converted", overrides=overrides)
    found = loading.weights(tmp_path / "converted")
    assert found.parts["encoder_embedding/tokens/caption"].shape == (224, 32)
    assert found.function["as_published"]
    assert "decoder/block_0/fc1/kernel" in loading.weights(TOKENIZER).parts
    with pytest.raises(ValueError, match="is a text tokenizer, which has no weights"):
        loading.weights(run / "tokenizers" / "text")
