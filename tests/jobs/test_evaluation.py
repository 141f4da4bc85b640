"""A model is evaluated alike as it was trained, as it is published, and converted back."""

import numpy as np
import pytest

from fourm_jax import loading
from fourm_jax.convert import checkpoint, fourm
from fourm_jax.generate.generator import Generator
from fourm_jax.jobs import eval_data, evaluation
from fourm_jax.modalities import registry
from fourm_jax.models.fourm import FourM
from fourm_jax.utils import io
from tests.evals import tiny_scenes
from tests.models import batches

NAMES = ("caption", "det")
SPECS = registry.resolve("fourm", NAMES)
HALF = dict.fromkeys(NAMES, 0.5)
DATA = eval_data.EvalData(
    groups=(
        {
            "name": "fake",
            "source": "fake",
            "arguments": {"family": "fourm", "names": NAMES, "num_records": 4},
            "fields": {name: name for name in NAMES},
            "channels": {},
            "mixture": {"input_alphas": HALF, "target_alphas": HALF},
        },
    )
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The model, and its folders as published and as converted from there."""
    folder = tmp_path_factory.mktemp("models")
    sizes = {"dim": 8, "encoder_depth": 1, "decoder_depth": 1, "num_heads": 2, "mlp_dim": 8}
    model = FourM(modalities=SPECS, inputs=NAMES, outputs=NAMES, **sizes)
    params = batches.parameters(model, fourm.example_tokens(model))["params"]
    fourm.export(folder / "published", model, params)
    checkpoint.convert(folder / "published", folder / "converted")
    return Generator(model, params), folder


def test_an_evaluation_replaces_another_one_and_never_the_numbers_of_a_run(tmp_path, capsys):
    evaluation.check_output(tmp_path)
    io.write_json(tmp_path / "metrics.json", {"evals": {"knn": {}}, "tasks": {}})
    evaluation.check_output(tmp_path)
    assert "an earlier evaluation (knn) is replaced" in capsys.readouterr().out
    io.write_json(tmp_path / "metrics.json", {"seconds": {}, "tasks": {}})
    with pytest.raises(ValueError, match=r"metrics.json is of a run, not of an evaluation"):
        evaluation.check_output(tmp_path)


def test_an_evaluation_is_not_written_beside_other_things(tmp_path):
    (tmp_path / ".DS_Store").touch()
    evaluation.check_output(tmp_path)
    evaluation.check_output(tmp_path / "new")
    (tmp_path / "report.html").write_text("of a run that has begun")
    with pytest.raises(ValueError, match=r"holds 'report\.html' and no evaluation; use another"):
        evaluation.check_output(tmp_path)


def test_a_published_and_a_converted_checkpoint_have_the_losses_of_the_model(
    folders, tmp_path, monkeypatch
):
    monkeypatch.setattr(eval_data, "PUBLISHED_SLOTS", 8)  # 256 take longer
    own, folder = folders
    losses = {}
    for name in ("own", "published", "converted"):
        generator = own if name == "own" else loading.load_generator(folder / name)
        job = evaluation.prepare(folder / name, generator, DATA, {"val_loss": {"batch_size": 4}})
        losses[name] = job.evaluators["val_loss"](job.context).tasks["all"]["model"]
    assert losses["published"] == pytest.approx(losses["own"], rel=1e-5)
    assert losses["converted"] == losses["published"]
    evaluation.run(job, tmp_path)
    found = io.read_json(tmp_path / "metrics.json")
    assert found["tasks"]["val_loss/all"]["model"] == losses["converted"]
    assert (tmp_path / evaluation.REPORT).stat().st_size > 1_000


def test_the_data_of_a_published_checkpoint_are_not_known(folders):
    _, folder = folders
    with pytest.raises(ValueError, match="is no run folder, whose data are known"):
        eval_data.choose(folder / "published", None, None)


def test_pictures_are_evaluated_with_their_channels_in_the_order_of_the_model():
    rgb = registry.resolve("scenes", ["rgb"])
    as_stored = {**tiny_scenes.data().groups[0], "channels": {}}
    named = {**as_stored, "channels": {"rgb": ("red", "green", "blue")}}
    stored = eval_data.EvalData(groups=(as_stored,)).read(rgb, "test", 2)
    turned = (rgb[0].replace(channels=("blue", "red", "green")),)
    read = eval_data.EvalData(groups=(named,)).read(turned, "test", 2)
    pixels = stored.tokens["rgb"]["pixels"]
    np.testing.assert_array_equal(read.tokens["rgb"]["pixels"], pixels[..., [2, 0, 1]])
    text = registry.resolve("scenes", ["caption"])  # asked for alone, it needs no channels
    assert len(eval_data.EvalData(groups=(named,)).read(text, "test", 2)) == 2
