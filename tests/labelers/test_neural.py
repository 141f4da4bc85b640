"""Labelers around models of transformers, with tiny models of random weights."""

import pathlib
import pickle

import numpy as np
import pytest

from fourm_jax.data.crops import images as image_transforms
from fourm_jax.labelers import base, coco, metadata, sam
from fourm_jax.modalities import boxes
from fourm_jax.modalities.instances import Instances
from tests.labelers import tiny_models

torch = pytest.importorskip("torch", reason="needs pip install -e '.[labelers]'")
transformers = pytest.importorskip("transformers", reason="needs pip install -e '.[labelers]'")

MAKERS = {
    "clip": tiny_models.clip,
    "dinov2": tiny_models.dinov2,
    "imagebind": tiny_models.imagebind,
    "depth": tiny_models.depth,
    "semseg": tiny_models.segformer,
    "det": tiny_models.det,
    "normal": lambda folder, lib: tiny_models.segformer(folder, lib, {"num_labels": 3}),
}


def picture(height, width, seed=0):
    """A smooth random picture."""
    noise = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), np.uint8)
    return image_transforms.resize(noise, (height, width), "bicubic")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """{labeler: folder of its model}."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models")
    return {name: make(folder / name, transformers) for name, make in MAKERS.items()}


def label(name, folder, images):
    """Labels of pictures, checked against what the labeler announces."""
    labeler = base.make(name, {"model": folder})
    records = [{"rgb": image} for image in images]
    labels = labeler.label(records)
    for record, one in zip(records, labels, strict=True):
        assert one.keys() == labeler.outputs.keys()
        base.check(labeler, record, one)
    return labels


@pytest.mark.parametrize("name", MAKERS)
def test_labels_do_not_depend_on_the_other_pictures_of_a_batch(models, name):
    images = [picture(32, 48, 1), picture(40, 32, 2), picture(32, 48, 3)]
    together = label(name, models[name], images)

    for image, expected in zip(images, together, strict=True):
        (alone,) = label(name, models[name], [image])
        for field, value in expected.items():
            values = (
                (alone[field], value) if field != "det" else (alone[field]["boxes"], value["boxes"])
            )
            if values[0].dtype == np.uint8:
                assert (values[0] == values[1]).mean() > 0.99  # ties of class scores may turn
            else:
                np.testing.assert_allclose(*values, atol=1e-4)


@pytest.mark.parametrize(("name", "width"), [("clip", 12), ("dinov2", 16), ("imagebind", 16)])
def test_a_map_has_a_cell_per_patch_of_the_whole_picture(models, name, width):
    (labels,) = label(name, models[name], [picture(39, 64)])

    assert labels[name].shape == (5, 8, width)  # patches of 8: 39 pixels are nearest to five
    if f"{name}_global" in labels:
        assert labels[f"{name}_global"].shape == (width,)


def test_clip_features_are_normed_tokens_times_the_projection(models):
    image = picture(32, 32)
    net = transformers.CLIPVisionModelWithProjection.from_pretrained(models["clip"]).eval()
    pixels = image_transforms.normalize(
        image, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    )
    with torch.no_grad():
        hidden = net(torch.tensor(pixels).permute(2, 0, 1)[None]).last_hidden_state[0, 1:]
        norm = net.vision_model.post_layernorm
        normed = (hidden - hidden.mean(-1, keepdim=True)) / torch.sqrt(
            hidden.var(-1, unbiased=False, keepdim=True) + norm.eps
        )
        expected = (normed * norm.weight + norm.bias) @ net.visual_projection.weight.T

    (labels,) = label("clip", models["clip"], [image])
    np.testing.assert_allclose(labels["clip"].reshape(16, 12), expected.numpy(), atol=1e-5)


def test_a_picture_on_which_the_model_fails_is_refused_like_a_bad_one(models):
    with pytest.raises(ValueError, match="the model fails on it"):
        label("det", models["det"], [np.zeros((32, 32, 4), np.uint8)])  # four channels


def test_relative_depth_grows_from_the_nearest_to_the_farthest_point(models):
    image = picture(32, 48)
    (labels,) = label("depth", models["depth"], [image])
    processor = transformers.AutoImageProcessor.from_pretrained(models["depth"])
    net = transformers.AutoModelForDepthEstimation.from_pretrained(models["depth"]).eval()
    with torch.no_grad():
        outputs = net(**processor(images=[image], return_tensors="pt"))
    (inverse,) = processor.post_process_depth_estimation(outputs, [(32, 48)])
    inverse = inverse["predicted_depth"].numpy()

    assert (labels["depth"].min(), labels["depth"].max()) == (0, 1)
    assert labels["depth"].argmin() == inverse.argmax()
    assert labels["depth"].argmax() == inverse.argmin()


def test_metric_depth_stays_in_metres(tmp_path):
    folder = tiny_models.depth(tmp_path, transformers, "metric")
    (labels,) = label("depth", folder, [picture(32, 48)])

    assert labels["depth"].min() > 0 and labels["depth"].max() <= 5  # the model's max_depth
    assert base.make("depth", {"model": folder}).settings["metric"] is True


@pytest.mark.parametrize("make", [tiny_models.segformer, tiny_models.mask2former])
def test_semantic_labels_are_classes_of_the_vocabulary(tmp_path, make):
    (labels,) = label("semseg", make(tmp_path, transformers), [picture(64, 80)])

    assert labels["semseg"].shape == (64, 80)
    assert labels["semseg"].min() >= 1 and labels["semseg"].max() <= len(coco.CLASSES)


def test_models_of_other_classes_are_refused(tmp_path, models):
    labels = {"num_labels": 2, "id2label": {0: "wall", 1: "windowpane"}}
    other = tiny_models.segformer(tmp_path, transformers, labels)

    with pytest.raises(ValueError, match="2 of 2 labels are not classes of COCO panoptic"):
        base.make("semseg", {"model": other})
    with pytest.raises(ValueError, match="133 outputs per pixel, expected 3"):
        base.make("normal", {"model": models["semseg"]})


def test_boxes_are_typed_named_and_counted(models):
    (labels,) = label("det", models["det"], [picture(40, 64)])
    found = boxes.from_record(labels["det"])

    assert 1 <= len(found.classes) <= 5 and set(found.classes) == {"person"}
    assert (found.boxes[:, :2] <= found.boxes[:, 2:]).all()
    assert (np.diff(found.scores) <= 0).all() and found.scores.min() >= 0.3
    record = {"rgb": picture(40, 64), "original_size": np.array([40, 64]), **labels}
    assert metadata.describe(record)["n_humans"] == len(found.filtered().classes) >= 1


def test_masks_become_outlines_and_edges(tmp_path, monkeypatch):
    pytest.importorskip("torchvision", reason="needs pip install -e '.[labelers]'")
    monkeypatch.setattr(sam, "POINTS_PER_SIDE", 3)
    torch.manual_seed(0)
    (labels,) = label("sam", tiny_models.sam(tmp_path, transformers), [picture(48, 64)])
    record = labels["sam_mask"]
    count = len(record["points"])

    assert count == len(record["bbox"]) >= 1
    assert set(np.unique(labels["sam_edge"])) == {0, 255}
    instances = Instances.from_record({**record, "token_ids": np.zeros((count, 16), int)})
    assert (instances.boxes[:, 2:] <= (64, 48)).all() and (instances.boxes >= 0).all()
    for polygon, box in zip(instances.polygons, instances.boxes, strict=True):
        assert (polygon >= box[:2]).all() and (polygon <= box[2:]).all()


class Trap:
    """A pickle that leaves a trace when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


def test_pickled_weights_are_refused_unread(tmp_path, models):
    folder = tmp_path / "model"
    folder.mkdir()
    for path in pathlib.Path(models["clip"]).glob("*.json"):
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(tmp_path / "loaded")))

    with pytest.raises(ValueError, match=r"no \*\.safetensors in the folder; pickled weights are"):
        base.make("clip", {"model": str(folder)})
    assert not (tmp_path / "loaded").exists()


def test_weights_that_the_files_lack_are_an_error_not_random_numbers(tmp_path):
    config = transformers.SegformerConfig(
        depths=[1] * 4, hidden_sizes=[8] * 4, num_attention_heads=[1] * 4, **tiny_models.LABELS
    )
    processor = transformers.SegformerImageProcessorPil(size={"height": 64, "width": 64})
    folder = tiny_models.save(tmp_path, transformers.SegformerModel(config), processor)

    with pytest.raises(ValueError, match=r"weights are missing or misfit, e\.g\. decode_head"):
        base.make("semseg", {"model": folder})


def test_a_model_that_is_not_there_is_one_clear_error(tmp_path):
    with pytest.raises(ValueError, match=r"labeler 'clip', model .*: cannot be loaded with CLIPV"):
        base.make("clip", {"model": str(tmp_path / "nothing")})


def test_other_weights_are_another_recipe(tmp_path, models):
    first = base.make("dinov2", {"model": models["dinov2"]}).settings
    other = base.make("dinov2", {"model": tiny_models.dinov2(tmp_path, transformers)}).settings

    assert first == base.make("dinov2", {"model": models["dinov2"]}).settings
    assert first["model"] != other["model"]
