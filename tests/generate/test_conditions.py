"""Conditions as people have them: files, arrays of any kind, texts, typed values."""

import warnings

import numpy as np
import pytest
from PIL import Image

from fourm_jax.generate import conditions, fitting, prompts
from fourm_jax.generate.prompts import ConditionWarning
from fourm_jax.modalities import instances, registry
from fourm_jax.modalities.boxes import Boxes
from fourm_jax.modalities.instances import Instances
from fourm_jax.modalities.poses import Poses
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.tokenizers.signal import Signal
from fourm_jax.tokenizers.text import TextTokenizer

NAMES = ("rgb", "tok_semseg", "caption", "det", "color_palette", "metadata")
RGB, SEMSEG, CAPTION, DET, PALETTE, METADATA = registry.resolve("scenes", NAMES)
POSES, INSTANCES = registry.resolve("fourm", ("human_poses", "sam_instance"))
VECTORS = ModalitySpec(name="t5", kind="embedding", max_tokens=5, embedding_dim=6)
COLOURS = Signal(axes="hwc", dtype="uint8", num_channels=3, low=0, high=255)
LABELS = Signal(axes="hw", dtype="uint8", kind="classes", num_classes=6)
EDGES = Signal(axes="hw", dtype="uint8", kind="binary", low=0, high=255)
METRES = Signal(axes="hw", low=0.5, high=20.0, log=True)
RED = np.full((8, 8, 3), (200, 0, 0), np.uint8)


@pytest.fixture(scope="module")
def text():
    texts = ["a red cone left of a blue box"]
    return TextTokenizer.train(texts, vocab_size=4300, class_names=["cone", "box"])


def quietly(function, *arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConditionWarning)
        return function(*arguments)


@pytest.mark.parametrize(
    "value",
    [
        RED,
        RED.astype(np.float32) / 255,
        np.moveaxis(RED, 2, 0),
        RED.astype(np.int64),
        (RED.astype(np.uint16) * 257),
        np.concatenate([RED, np.full((8, 8, 1), 255, np.uint8)], axis=2),
    ],
    ids=["bytes", "0 to 1", "channels first", "wide", "16 bits", "opaque"],
)
def test_colours_of_any_kind_are_the_same_picture(value):
    fitted = quietly(fitting.fit, value, RGB, COLOURS, (8, 8))
    np.testing.assert_array_equal(fitted, RED)


def test_grey_and_transparent_pictures_become_colours():
    grey = fitting.fit(np.full((8, 8), 7, np.uint8), RGB, COLOURS, (8, 8))
    assert grey.tolist() == np.full((8, 8, 3), 7).tolist()
    clear = np.concatenate([RED, np.zeros((8, 8, 1), np.uint8)], axis=2)
    assert fitting.fit(clear, RGB, COLOURS, (8, 8)).min() == 255


def test_a_wide_picture_is_cropped_in_its_middle_and_that_is_said():
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 255
    with pytest.warns(ConditionWarning, match="rgb: the middle 8 x 8 of 24 x 8 pixels, resized to"):
        fitted = fitting.fit(wide, RGB, COLOURS, (4, 4))
    assert fitted.shape == (4, 4, 3)
    assert fitted.min() == 255


def test_label_maps_are_never_mixed_and_edges_stay_two_valued():
    labels = np.zeros((8, 8), np.uint8)
    labels[:, 4:] = 5
    assert {0, 5} == set(np.unique(quietly(fitting.fit, labels, SEMSEG, LABELS, (3, 3))))
    ramp = np.tile(np.arange(0, 256, 16, np.uint8), (16, 1))
    (edge,) = registry.resolve("scenes", ("tok_edge",))
    assert {0, 255} == set(np.unique(quietly(fitting.fit, ramp, edge, EDGES, (8, 8))))


@pytest.fixture
def map_files(tmp_path):
    """The same map of classes in a published folder and in one of nobody's."""
    paths = []
    for folder in ("semseg_coco/00000", "mine"):
        (tmp_path / folder).mkdir(parents=True)
        paths.append(tmp_path / folder / "a.png")
        Image.fromarray(np.array([[0, 0], [3, 255]], np.uint8)).save(paths[-1])
    return paths


def test_a_published_map_is_read_as_labels_and_classes_are_named(map_files):
    published, own = map_files
    with pytest.warns(ConditionWarning, match=r"a published map .*: 50 % ground, 25 % back"):
        assert fitting.read_picture(published, SEMSEG, LABELS).tolist() == [[1, 1], [4, 0]]
    with pytest.warns(ConditionWarning, match="is read as labels: 50 % background, 25 % box"):
        assert fitting.read_picture(own, SEMSEG, LABELS).tolist() == [[0, 0], [3, 255]]


def test_void_of_a_map_that_is_not_known_as_published_is_refused_with_what_to_do(map_files):
    own = quietly(fitting.read_picture, map_files[1], SEMSEG, LABELS)
    with pytest.raises(ValueError, match=r"values in 0 … 255; where 255 is no class.* mod 256"):
        LABELS.check(own[None], "tokenizer 'semseg'")


def test_a_published_map_of_wide_integers_is_refused_by_name(map_files):
    Image.fromarray(np.zeros((2, 2), np.uint16)).save(map_files[0])
    with pytest.raises(ValueError, match=r"a\.png: uint16 of shape .*expected classes uint8"):
        fitting.read_picture(map_files[0], SEMSEG, LABELS)


def test_depth_of_16_bits_is_millimetres_and_of_8_bits_refused():
    (depth,) = registry.resolve("scenes", ("tok_depth",))
    with pytest.warns(ConditionWarning, match=r"tok_depth: .* is read as millimetres"):
        metres = fitting.fit(np.full((4, 4), 2500, np.uint16), depth, METRES, (4, 4))
    assert metres.tolist() == np.full((4, 4), 2.5).tolist()
    with pytest.raises(ValueError, match="integers of 8 bits have no unit"):
        fitting.fit(np.zeros((4, 4), np.uint8), depth, METRES, (4, 4))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.full((8, 8, 3), 300), r"rgb: array int64 \[8, 8, 3\].*got values in 300"),
        (np.full((8, 8, 3), np.nan), "some values are not finite"),
        (np.zeros((8, 8, 5), np.uint8), "expected one of uint8"),
        (np.array([["a"]]), "rgb: array <U1"),
    ],
)
def test_what_cannot_be_a_picture_is_refused(value, message):
    with pytest.raises(ValueError, match=message):
        fitting.fit(value, RGB, COLOURS, (8, 8))


def test_one_picture_file_and_lists_of_them_are_pixels(tmp_path):
    Image.fromarray(np.full((48, 64, 3), 9, np.uint8)).save(tmp_path / "a.png")
    one = quietly(conditions.encode, RGB, str(tmp_path / "a.png"), {})
    assert one["pixels"].shape == (1, 32, 32, 3)
    assert one["pixels"].max() == 9
    two = quietly(conditions.encode, RGB, [tmp_path / "a.png", RED], {})
    assert two["pixels"].shape == (2, 32, 32, 3)


def test_a_condition_given_once_counts_for_every_row(text):
    entries = quietly(
        conditions.encode_all,
        {"rgb": np.stack([np.zeros((32, 32, 3), np.uint8)] * 3), "caption": "a red cone"},
        {"rgb": RGB, "caption": CAPTION},
        {"text": text},
    )
    assert entries["caption"]["ids"].shape[0] == 3
    assert (entries["caption"]["ids"] == entries["caption"]["ids"][:1]).all()


def test_typed_values_are_one_row_or_a_list_of_rows(text):
    box = {"box": [0.1, 0.2, 0.5, 0.6], "label": "cone"}
    ours = conditions.encode(DET, [box], {"text": text})
    typed = conditions.encode(DET, Boxes(np.array([box["box"]]), ("cone",)), {"text": text})
    np.testing.assert_array_equal(ours["ids"], typed["ids"])
    assert conditions.encode(DET, [[box], [box, box]], {"text": text})["ids"].shape[0] == 2
    palette = conditions.encode(PALETTE, [[255, 0, 0], [0, 0, 9]], {"text": text})
    assert palette["length"].tolist() == [8]  # count, six values, end
    metadata = conditions.encode(METADATA, {"brightness": 200}, {"text": text})
    assert metadata["length"].tolist() == [3]
    two = conditions.encode(METADATA, [{"brightness": 200}, {"contrast": 1}], {"text": text})
    assert two["ids"].shape[0] == 2


def test_poses_and_instances_are_typed_too(text):
    poses = Poses(
        np.array([[0.1, 0.2, 0.5, 0.9]]),
        np.arange(8)[None],
        np.eye(3).reshape(1, 9),
        np.zeros((1, 3)),
        np.zeros((1, 10)),
    )
    entry = conditions.encode(POSES, poses, {"text": text})
    assert entry["length"].tolist() == [len(text.encode(poses.to_text())) + 1]  # and the end
    square = np.array([[0, 0], [224, 0], [224, 224], [0, 224]], float)
    one = Instances((square,), np.array([[0, 0, 224, 224]]), np.arange(16)[None])
    entry = conditions.encode(INSTANCES, one, {"text": text})
    points = instances.random_points(np.random.default_rng(0))
    assert entry["length"].tolist() == [len(text.encode(one.to_text(points))) + 1]


def test_vectors_of_another_model_are_taken_as_they_are():
    vectors = np.ones((3, 6), np.float32)
    entry = conditions.encode(VECTORS, vectors, {})
    assert (entry["embeddings"].shape, entry["length"].tolist()) == ((1, 3, 6), [3])
    assert conditions.encode(VECTORS, np.stack([vectors] * 2), {})["length"].tolist() == [3, 3]
    for wrong in (np.ones((3, 5), np.float32), np.ones((3, 6), np.int32)):
        with pytest.raises(ValueError, match=r"allowed: float \[rows, vectors, 6\]"):
            conditions.encode(VECTORS, wrong, {})
    with pytest.raises(ValueError, match="6 vectors, allowed: 5"):
        conditions.encode(VECTORS, np.ones((6, 6), np.float32), {})


@pytest.mark.parametrize(
    ("spec", "value", "message"),
    [
        (PALETTE, [[300, 0, 0]], r"'color_palette': colours \[\[300, 0, 0\]\], allowed: values 0"),
        (DET, [{"box": [0, 0, 2, 1], "label": "cone"}], "'det': box 0 is .* expected xmin < xmax"),
        (DET, [{"box": [0.1, 0, 0.1, 1], "label": "cone"}], "'det': box 0 is .* xmin < xmax"),
        (DET, [{"box": [0, 0], "label": "cone"}], "'det': boxes .* allowed: four numbers each"),
        (METADATA, {"brightnes": 3}, "unknown metadata field 'brightnes'; did you mean 'bright"),
    ],
)
def test_a_typed_value_that_means_nothing_is_refused(spec, value, message, text):
    with pytest.raises(ValueError, match=message):
        conditions.encode(spec, value, {"text": text})


def test_holes_become_sentinels_and_what_follows_the_last_is_complete(text):
    assert prompts.fill_holes("a ___ cone left of a ____") == "a [S_1] cone left of a [S_2]"
    assert prompts.fill_holes("a_red cone") == "a_red cone"
    first = text.vocabulary.first_sentinel_id
    inside = conditions.encode(CAPTION, "a ___ cone", {"text": text})
    ids = inside["ids"][0, : inside["length"][0]].tolist()
    assert first + 1 in ids
    assert ids[-1] == text.vocabulary.eos_id
    end = conditions.encode(CAPTION, "a red ___", {"text": text})
    assert end["ids"][0, end["length"][0] - 1] == first + 1


def test_unknown_words_are_named_with_what_the_model_knows(text):
    with pytest.warns(ConditionWarning) as caught:
        conditions.encode(CAPTION, ["a red dog", "two cone"], {"text": text})
    (warning,) = caught
    assert "caption: the model does not know 'dog', 'two'; it knows " in str(warning.message)
    assert "blue" in str(warning.message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        conditions.encode(CAPTION, "a red cone left of a ___ box", {"text": text})


def test_a_box_of_an_unknown_class_is_named(text):
    with pytest.warns(ConditionWarning, match="det: the model does not know 'zebra'"):
        conditions.encode(DET, [{"box": [0, 0, 1, 1], "label": "zebra"}], {"text": text})
