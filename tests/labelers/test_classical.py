"""Labelers without weights: values worked out by hand, and photographs that scikit-image ships."""

import pathlib
import sys

import numpy as np
import pytest
import skimage
from PIL import Image
from skimage import measure

from fourm_jax import labelers
from fourm_jax.data.crops import fields
from fourm_jax.labelers import base, coco, color_palette, extras, metadata, sam
from fourm_jax.modalities.instances import Instances
from fourm_jax.modalities.palette import Palette, from_record

PHOTOGRAPHS = pathlib.Path(skimage.__file__).parent / "data"  # in the wheel, not downloaded
NAMES = ("rgb", "canny_edge", "color_palette", "metadata", "caption")


NEW_LABELER = '''"""Labeler: how dark each pixel is."""

import numpy as np

from fourm_jax.labelers.base import Labeler, Output


def make_labeler(*, power=1):
    def label(records):
        grey = [record["rgb"].mean(-1, dtype=np.float32) for record in records]
        return [{"darkness": (1 - one / 255) ** power} for one in grey]

    types = {"darkness": Output(axes="hw", dtype="float32", low=0, high=1)}
    return Labeler(name="darkness", inputs=("rgb",), outputs=types, label=label)
'''


def flat(color, size=(24, 32)):
    return np.full((*size, 3), color, np.uint8)


def label(path):
    """Fields of one picture, every labeler's output checked against what it announces."""
    record = {"file": path.name, "path": str(path)}
    for labeler in base.in_order([base.make(name) for name in NAMES]):
        (labels,) = labeler.label([record])
        base.check(labeler, record, labels)
        record |= labels
    return record


@pytest.mark.parametrize("name", ["astronaut.png", "coffee.png", "camera.png", "rocket.jpg"])
def test_a_photograph_gets_every_field_aligned_and_typed(name):
    record = label(PHOTOGRAPHS / name)
    height, width = record["rgb"].shape[:2]

    assert min(height, width) == 256
    assert record["canny_edge"].shape == (height, width)
    assert set(np.unique(record["canny_edge"])) == {0, 255}
    assert 0.01 < (record["canny_edge"] > 0).mean() < 0.25
    assert record["caption"] == [name.split(".")[0]]
    assert [len(colors) for colors in record["color_palette"][0].values()] == [1, 2, 3, 4, 5, 6, 7]
    assert record["metadata"].keys() >= {"original_width", "colorfulness", "entropy"}


def test_edges_lie_where_brightness_jumps_and_nowhere_else():
    rgb = flat((20, 20, 20), (32, 32))
    rgb[:, 16:] = 220
    (labels,) = base.make("canny_edge").label([{"rgb": rgb}])

    columns = np.flatnonzero(labels["canny_edge"][16])
    assert len(columns) == 1 and columns[0] in (15, 16)
    (labels,) = base.make("canny_edge").label([{"rgb": flat((90, 10, 200))}])
    assert not labels["canny_edge"].any()


def test_a_palette_holds_the_colours_most_frequent_first():
    rgb = flat((250, 0, 0), (30, 30))
    rgb[:10], rgb[10:14] = (0, 0, 250), (0, 250, 0)

    found = color_palette.palettes(rgb)

    assert list(found) == ["1", "2", "3"]  # there is no palette of more colours than the picture
    assert found["3"] == [[250, 0, 0], [0, 0, 250], [0, 250, 0]]


def test_a_palette_is_written_by_its_text_modality():
    found = [color_palette.palettes(flat((250, 0, 0)))]

    drawn = from_record(found, np.random.default_rng(0))
    assert Palette.from_text(drawn.to_text()).value.colors.tolist() == [[250, 0, 0]]


def test_metadata_of_flat_colours_are_what_their_formulas_say():
    grey = metadata.appearance(flat((100, 100, 100)))
    red = metadata.appearance(flat((255, 0, 0)))
    halves = flat((0, 0, 0))
    halves[:, 16:] = 255

    assert grey == {
        "colorfulness": 0,
        "brightness": 100,
        "contrast": 0,
        "saturation": 0,
        "entropy": 0,
    }
    assert red["brightness"] == 76  # 0.299 * 255
    assert red["saturation"] == 255
    # No spread; means of red - green and (red + green) / 2 - blue are 255 and 127.5.
    assert red["colorfulness"] == pytest.approx(0.3 * np.hypot(255, 127.5))
    assert metadata.appearance(halves)["contrast"] == pytest.approx(127.5)
    assert metadata.appearance(halves)["entropy"] == pytest.approx(1)


def test_metadata_count_what_other_labelers_found():
    record = {
        "rgb": flat((0, 0, 0)),
        "original_size": np.array([480, 640], np.int32),
        "caption": ["A man walks two dogs. They are fast!"],
        "det": {
            "boxes": np.array([[0, 0, 1, 1]] * 4, np.float32),
            "classes": ["person", "dog", "dog", "cat"],
            "scores": np.array([0.9, 0.8, 0.7, 0.4], np.float32),
        },
        "sam_mask": {"points": [[[0, 0], [1, 0], [1, 1]]] * 5, "bbox": [[0, 0, 1, 1]] * 5},
        "semseg": np.array([[0, 1], [1, 117]], np.uint8),
    }

    found = metadata.describe(record)

    assert (found["original_width"], found["original_height"]) == (640, 480)
    assert (found["caption_n_chars"], found["caption_n_words"]) == (36, 8)
    assert found["caption_n_sentences"] == 2
    assert (found["n_humans"], found["n_coco_instances"]) == (1, 3)  # the cat is too uncertain
    assert found["coco_instance_diversity"] == 2
    assert (found["n_sam_instances"], found["semantic_diversity"]) == (5, 2)


def test_a_mask_becomes_its_outline_and_box():
    mask = np.zeros((8, 10), bool)
    mask[2:5, 3:9] = True
    mask[7, 0] = True  # a crumb: the longest outline counts

    points = sam.outline(mask, measure)

    assert sam.box(points) == [2, 3, 5, 9]  # ymin, xmin, ymax, xmax
    assert (points[0] == points[-1]).all()
    assert Instances.from_record(
        {"points": [points], "bbox": [[2, 3, 5, 9]], "token_ids": np.zeros((1, 16), int)}
    ).containing((6, 3.5)) == [0]


def test_labels_of_a_model_become_ids_of_the_vocabulary_by_name():
    table = coco.ids_of({0: "dog", 1: "person", 2: "N/A", 3: "rug-merged"})

    assert table.tolist() == [17, 1, 0, 133]  # 0 is no class; dog is the 17th, rug the last
    assert len(set(coco.CLASSES)) == 133
    with pytest.raises(ValueError, match=r"1 of 2 labels are not classes of .* 'windowpane'"):
        coco.ids_of({0: "dog", 1: "windowpane"})


def test_several_captions_have_no_common_length():
    record = {"rgb": flat((0, 0, 0)), "original_size": np.array([2, 2]), "caption": ["a", "b c"]}
    assert "caption_n_chars" not in metadata.describe(record)


def test_labelers_run_after_those_whose_fields_they_read():
    chosen = [base.make(name) for name in NAMES]
    names = [labeler.name for labeler in base.in_order(chosen)]

    assert names.index("rgb") < min(names.index("canny_edge"), names.index("color_palette"))
    assert names.index("caption") < names.index("metadata")
    assert names == [labeler.name for labeler in base.in_order(chosen[::-1])]


def test_labelers_that_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match="'canny_edge' reads field 'rgb', which none of"):
        base.in_order([base.make("canny_edge")])
    with pytest.raises(ValueError, match="field 'rgb' is made by 'rgb' and by 'rgb'"):
        base.in_order([base.make("rgb"), base.make("rgb")])


def test_a_labeler_is_found_by_the_name_of_its_file():
    assert set(base.names()) == {
        *NAMES,
        "clip",
        "depth",
        "det",
        "dinov2",
        "imagebind",
        "normal",
        "sam",
        "semseg",
    }
    with pytest.raises(ValueError, match="unknown labeler 'canny'; did you mean 'canny_edge'"):
        base.make("canny")
    with pytest.raises(ValueError, match=r"labeler 'rgb': .*'size'; it takes \['image_size'\]"):
        base.make("rgb", {"size": 3})
    with pytest.raises(ValueError, match=r"image_size 5000, allowed: 16\.\.2048"):
        base.make("rgb", {"image_size": 5000})


def test_a_new_file_is_a_new_labeler(monkeypatch, tmp_path):
    (tmp_path / "darkness.py").write_text(NEW_LABELER)
    monkeypatch.setattr(labelers, "__path__", [*labelers.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "fourm_jax.labelers.darkness", raising=False)

    assert "darkness" in base.names()
    (labels,) = base.make("darkness", {"power": 2}).label([{"rgb": flat((0, 0, 0), (8, 8))}])
    np.testing.assert_array_equal(labels["darkness"], np.ones((8, 8), np.float32))


def test_a_feature_map_is_cropped_with_its_picture():
    cells = np.random.default_rng(0).normal(size=(4, 8, 5)).astype(np.float32)
    record = {"rgb": flat((0, 0, 0), (32, 64)), "clip": cells}
    settings = np.array([[0, 32, 32, 32, 0], [0, 32, 32, 32, 1], [0, 16, 16, 16, 0]])

    right, mirrored, corner = fields.crop_record(record, settings, (32, 32))
    np.testing.assert_allclose(right["clip"], cells[:, 4:], atol=1e-6)
    np.testing.assert_allclose(mirrored["clip"], cells[:, :3:-1], atol=1e-6)
    # Enlarged twice: each cell's value lies between those of the four cells of the corner.
    assert corner["clip"].shape == (4, 4, 5)
    inside = cells[2:4, 2:4]
    assert inside.min() <= corner["clip"].min() and corner["clip"].max() <= inside.max()
    half, *_ = fields.crop_record(record, settings, (16, 16))
    assert half["clip"].shape == (2, 2, 5)


def test_a_missing_library_is_one_error_that_names_the_extra():
    with pytest.raises(ValueError, match=r"pip install 'fourm_jax\[labelers\]', or pip install no"):
        extras.require("no_such_library", "depth")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"edge": np.zeros((8, 8), np.uint8)}, "unknown field of labeler 'x' 'edge'"),
        ({"map": np.zeros((8, 8), np.float64)}, "float64, announced: float32"),
        ({"map": [0.0]}, "list, announced: float32"),
        ({"map": np.zeros((4, 8), np.float32)}, r"shape \(4, 8\) on a picture of \(8, 8, 3\)"),
        ({"map": np.zeros((8, 8, 1), np.float32)}, "announced: hw"),
        ({"map": np.full((8, 8), 2, np.float32)}, r"values 2\.0 … 2\.0, announced: 0 … 1"),
        ({"map": np.full((8, 8), np.nan, np.float32)}, "announced: 0 … 1"),
        ({"free": np.full((3,), np.inf, np.float32)}, "values inf … inf, announced: -inf … inf"),
        ({"vectors": np.full((8, 8, 3), 0.5, np.float32)}, "length is not 1"),
        ({"metadata": {"no_such_field": 1.0}}, "no_such_field"),
        ({"color_palette": [{str(n): [[n, 0, 300 * (n == 7)]] for n in range(1, 8)}]}, "300"),
    ],
)
def test_what_a_labeler_did_not_announce_is_refused(labels, message):
    labeler = base.Labeler(
        name="x",
        inputs=("rgb",),
        outputs={
            "map": base.Output(axes="hw", dtype="float32", low=0, high=1),
            "vectors": base.Output(axes="hwc", dtype="float32", unit=True),
            "free": base.Output(axes="c", dtype="float32"),
            "metadata": base.Output(),
            "color_palette": base.Output(),
        },
        label=lambda records: [{} for _ in records],
    )
    with pytest.raises(ValueError, match=message):
        base.check(labeler, {"rgb": flat((0, 0, 0), (8, 8))}, labels)


def test_a_picture_is_the_same_whatever_comes_with_it_in_a_batch():
    paths = [PHOTOGRAPHS / name for name in ("coffee.png", "chelsea.png")]
    records = [{"path": str(path)} for path in paths]
    together = base.make("rgb").label(records)

    (alone,) = base.make("rgb").label(records[1:])
    np.testing.assert_array_equal(together[1]["rgb"], alone["rgb"])
    assert Image.open(paths[1]).size == tuple(alone["original_size"][::-1])
