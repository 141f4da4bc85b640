"""The recipes that go on from trained weights take two steps, and say what became of every part."""

import pathlib

import jax
import pytest

from configs.finetune import scenes
from fourm_jax.train import loop, run_config
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import io

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"


def train(path, workdir, num_steps=2):
    changes = {"num_steps": num_steps, "checkpoint_every": 0}
    changes |= {"optimizer.schedule": "constant", "optimizer.warmup_steps": 0}
    config = config_lib.load(str(CONFIGS / path), changes)
    loop.train(config, workdir, show_progress=False, devices=jax.devices()[:1])
    return io.read_json(workdir / "init.json") if "init" in config else None


@pytest.fixture(scope="module")
def mod7(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("mod7")
    train("fourm.py:mix=mod7,runlocal", workdir, num_steps=0)
    return workdir


def test_mod21_starts_from_mod7_and_the_other_modalities_anew(mod7, tmp_path):
    report = train(f"finetune/fourm.py:recipe=mod21,source={mod7},runlocal", tmp_path)
    assert report["dropped"] == []
    assert "encoder_embedding/tokens/caption" in report["copied"]
    names = {name.split("/")[-1] for name in report["new"]}
    assert {"metadata", "tok_dinov2_global", "tok_sam_edge@224"} <= names
    assert not names & {"caption", "rgb@224", "tok_depth@224"}


def test_tables_of_448_pixels_start_as_those_of_224(mod7, tmp_path):
    report = train(f"finetune/fourm.py:recipe=superres,source={mod7},runlocal", tmp_path, 0)
    assert report["new"] == []
    assert "decoder_embedding/tokens/tok_rgb@448" in report["copied"]
    assert "encoder_embedding/contents_rgb@448/kernel" in report["copied"]
    assert "decoder_embedding/tokens/caption" in report["dropped"]


def test_text_to_image_copies_everything(mod7, tmp_path):
    report = train(f"finetune/fourm.py:recipe=text2image,source={mod7},runlocal", tmp_path, 0)
    assert report["new"] == report["dropped"] == []


def test_a_diffusion_decoder_learns_on_the_tokens_of_a_vqvae(tmp_path):
    train("data/pictures.py:tokenizer=rgb,runlocal", tmp_path / "vqvae", num_steps=1)
    report = train(f"finetune/divae.py:source={tmp_path / 'vqvae'},runlocal", tmp_path / "divae")
    assert all(name.startswith("decoder/") for name in report["new"])
    assert "codebook/quantizer/codes" in report["copied"]


@pytest.mark.parametrize("recipe", ["mod21", "text2image", "superres", "pictures"])
def test_a_recipe_is_a_config_of_its_own_task(recipe):
    config = config_lib.load(str(CONFIGS / f"finetune/fourm.py:recipe={recipe},source=RUN"))
    assert config.init.source == "RUN"
    assert run_config.make_task(config).model.dim == 768


def test_distillation_adds_one_kind_of_sample_to_the_masks_of_before():
    config = config_lib.load(str(CONFIGS / "finetune/distil.py:source=RUN,share=0.5"))
    (data,) = config.data
    (before,) = config_lib.load(str(CONFIGS / "scenes.py")).data
    weights, old = list(data.mixture.weights), list(before.mixture.weights)
    assert weights == [*(weight / 2 for weight in old), 0.5]
    for name, values in data.mixture.target_alphas.items():
        asked = 10.0 if name in ("feature_global", "tok_semseg") else 0.0
        assert list(values) == [*before.mixture.target_alphas[name], asked]
    assert config.init.source == "RUN"
    assert run_config.make_task(config).loss_weights == {"feature_global": 4.0}
    with pytest.raises(ValueError, match="share 0"):
        config_lib.load(str(CONFIGS / "finetune/distil.py:share=0.0"))


@pytest.mark.parametrize("task", list(scenes.TASKS))
def test_a_picture_with_depth_is_learned_and_augmented_as_one_without(task):
    colours, depth = (
        scenes.get_config(f"task={task},init=RUN,inputs={inputs}") for inputs in ("rgb", "rgbd")
    )
    assert depth.transfer == colours.transfer
    assert depth.transfer.mirror == (task != "pose")
    assert (depth.num_steps, depth.batch_size) == (colours.num_steps, colours.batch_size)


@pytest.mark.parametrize("recipe", ["imagenet", "ade20k", "nyuv2", "coco"])
def test_a_published_transfer_takes_two_steps_on_random_data(recipe, tmp_path):
    path = str(CONFIGS / f"finetune/published.py:recipe={recipe},runlocal")
    config = config_lib.load(path, {"num_steps": 2})
    result = loop.train(config, tmp_path, show_progress=False, devices=jax.devices()[:1])
    assert int(result.state.step) == 2
    assert 0 < result.metrics["loss"] < 100


def test_any_tfds_data_set_has_labels_to_learn():
    arguments = "init=RUN,dataset=cifar10,num_classes=10"
    config = config_lib.load(str(CONFIGS / f"finetune/published.py:recipe=classes,{arguments}"))
    (labelled,) = config.data
    assert labelled["source"] == "tfds"
    assert labelled["arguments"]["dataset"] == "cifar10"
    assert tuple(labelled["arguments"]["fields"]["label"]) == ("array", "label")
    arguments = "init=RUN,dataset=oxford_iiit_pet,label=segmentation_mask,num_classes=4"
    config = config_lib.load(str(CONFIGS / f"finetune/published.py:recipe=masks,{arguments}"))
    fields = config.data[0]["arguments"]["fields"]
    assert tuple(fields["label"]) == ("labels", "segmentation_mask")


@pytest.mark.parametrize("recipe", ["imagenet", "ade20k", "nyuv2", "coco", "classes", "masks"])
def test_a_published_transfer_is_a_config_of_its_size(recipe):
    path = str(CONFIGS / f"finetune/published.py:recipe={recipe},size=large,init=RUN,lora=8")
    config = config_lib.load(path)
    task = run_config.make_task(config)
    assert (task.model.dim, task.model.drop_path) == (1_024, 0.2)
    assert task.never_learns("trunk/encoder/norm/scale")
    assert not task.never_learns("adapters/encoder/blocks/attention/qkv/kernel/a")
