"""Aligned crops: published numbers, geometry by hand, and alignment over fields."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from fourm_jax.data.crops import fields, images, settings
from fourm_jax.modalities import boxes, label_maps, poses
from tests import golden_cases

CENTRE = [[0, 1, 4, 4, 0]]  # of a 4 x 6 picture


def golden() -> tuple[dict[str, np.ndarray], list[int], tuple[int, int]]:
    folder = golden_cases.shipped("transforms")
    recorded = json.loads((folder / "image_transforms.json").read_text())
    arrays = load_file(folder / "image_transforms.safetensors")
    height, width = recorded["target_size"]
    return arrays, recorded["crop_coords_top_left_h_w"], (height, width)


def cropped(arrays: dict[str, np.ndarray], field: str, flip: int) -> np.ndarray:
    """One field by its rule, with the recorded crop."""
    raw = {
        "rgb": arrays["in/rgb"],
        "normal": arrays["in/rgb"],
        "depth": arrays["in/depth_u16"].astype(np.uint16),
        "semseg": arrays["in/semseg"],
        "mask_valid": arrays["in/mask"],
    }[field]
    _, crop, size = golden()
    (result,) = fields.crop_record({field: raw}, np.array([[*crop, flip]]), size)
    return result[field]


@pytest.mark.parametrize("flip", [0, 1])
def test_pictures_equal_those_of_the_published_system(flip):
    arrays, _, _ = golden()

    def recorded(name, mode="None"):
        return arrays[f"out/{name}/flip{flip}/{mode}"]

    rgb = cropped(arrays, "rgb", flip)
    for mode in ("None", "bicubic"):
        expected = np.moveaxis(recorded("rgb_imagenet", mode), 0, 2)
        np.testing.assert_allclose(images.normalize(rgb), expected, atol=1e-6)
    half = (0.5, 0.5, 0.5)
    for field in ("rgb_inception", "normal"):
        pixels = rgb if field == "rgb_inception" else cropped(arrays, "normal", flip)
        expected = np.moveaxis(recorded(field), 0, 2)
        np.testing.assert_allclose(images.normalize(pixels, half, half), expected, atol=1e-6)
    labels = label_maps.labels(cropped(arrays, "semseg", flip))
    np.testing.assert_array_equal(labels, recorded("semseg_shift"))
    np.testing.assert_array_equal(cropped(arrays, "mask_valid", flip) == 255, recorded("mask")[0])
    depth = cropped(arrays, "depth", flip) / np.float32(65535)
    np.testing.assert_allclose(images.standardize_depth(depth), recorded("depth")[0], atol=1e-5)


@pytest.mark.parametrize("flip", [False, True])
def test_bilinear_resizing_equals_that_of_the_published_system(flip):
    arrays, crop, size = golden()
    pixels = images.crop_resize(arrays["in/rgb"], crop, size, "bilinear", flip)
    expected = np.moveaxis(arrays[f"out/rgb_imagenet/flip{int(flip)}/bilinear"], 0, 2)
    np.testing.assert_allclose(images.normalize(pixels), expected, atol=1e-6)


def test_depth_standardisation_equals_that_of_the_published_system():
    arrays, _, _ = golden()
    result = images.standardize_depth(arrays["depth_standardization/in"])
    np.testing.assert_allclose(result, arrays["depth_standardization/out"], atol=1e-5)


def record() -> dict:
    """A 4 x 6 picture whose pixels say where they are."""
    rows, columns = np.mgrid[:4, :6]
    place = (10 * rows + columns).astype(np.uint8)
    return {
        "rgb": np.repeat(place[..., None], 3, -1),
        "semseg": place,
        "depth": place.astype(np.float32),
        "normal": np.tile(np.array([0.6, 0.0, 0.8], np.float32), (4, 6, 1)),
        "det": {"boxes": np.array([[1 / 6, 0, 3 / 6, 1.0]], np.float32), "classes": ["cube"]},
        "caption": "a cube left of a copyright cone",
        "metadata": {"num_objects": 2},
    }


def test_height_and_width_keep_their_order():
    (result,) = fields.crop_record(record(), [[0, 0, 4, 6, 0]], (8, 3))
    assert result["rgb"].shape == (8, 3, 3)
    assert result["semseg"].shape == (8, 3)
    assert result["semseg"][:, 0].tolist() == [1, 1, 11, 11, 21, 21, 31, 31]


def test_a_crop_cuts_every_field_alike():
    (result,) = fields.crop_record(record(), CENTRE, (4, 4))
    expected = record()["semseg"][:, 1:5]
    np.testing.assert_array_equal(result["rgb"][..., 0], expected)
    np.testing.assert_array_equal(result["semseg"], expected)
    np.testing.assert_array_equal(result["depth"], expected)
    np.testing.assert_allclose(result["det"].boxes, [[0, 0, 0.5, 1]], atol=1e-6)
    assert result["metadata"] == {"num_objects": 2}


def test_a_flip_mirrors_every_field_alike():
    (result,) = fields.crop_record(record(), [[0, 1, 4, 4, 1]], (4, 4))
    expected = record()["semseg"][:, 4:0:-1]
    np.testing.assert_array_equal(result["rgb"][..., 0], expected)
    np.testing.assert_array_equal(result["semseg"], expected)
    np.testing.assert_allclose(result["det"].boxes, [[0.5, 0, 1, 1]], atol=1e-6)
    assert result["caption"] == "a cube right of a copyright cone"


def test_a_flip_negates_the_x_of_normals():
    (result,) = fields.crop_record(record(), [[0, 0, 4, 6, 1]], (4, 6))
    np.testing.assert_allclose(result["normal"][0, 0], [-0.6, 0.0, 0.8], atol=1e-6)
    stored = {"normal": np.full((4, 6, 3), 200, np.uint8)}
    (result,) = fields.crop_record(stored, [[0, 0, 4, 6, 1]], (4, 6))
    assert result["normal"][0, 0].tolist() == [55, 200, 200]


def test_interpolated_normals_are_unit_vectors():
    rng = np.random.default_rng(0)
    normals = rng.normal(size=(8, 8, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    (result,) = fields.crop_record({"normal": normals}, [[0, 0, 8, 8, 0]], (5, 3))
    np.testing.assert_allclose(np.linalg.norm(result["normal"], axis=-1), 1, atol=1e-5)
    assert result["normal"].dtype == np.float32


def test_interpolated_floats_stay_within_their_range():
    depth = np.where(np.arange(8) < 4, 1.0, 9.0).astype(np.float32)
    (result,) = fields.crop_record({"depth": np.tile(depth, (8, 1))}, [[0, 0, 8, 8, 0]], (5, 5))
    assert (result["depth"].min(), result["depth"].max()) == (1.0, 9.0)


@pytest.mark.parametrize("missing", [np.nan, np.inf])
def test_pixels_without_a_value_stay_missing_and_the_rest_of_a_map_is_right(missing):
    depth = np.tile(np.array([2.0, 2.0, 6.0, 6.0, 6.0, 6.0, 6.0, 6.0], np.float32), (8, 1))
    depth[5, 5] = missing
    (larger,) = fields.crop_record({"depth": depth}, [[0, 0, 8, 8, 0]], (16, 16))
    assert np.argwhere(np.isnan(larger["depth"])).tolist() == [
        [10, 10],
        [10, 11],
        [11, 10],
        [11, 11],
    ]
    (smaller,) = fields.crop_record({"depth": depth}, [[0, 0, 8, 8, 0]], (4, 4))
    whole = np.nan_to_num(depth, nan=6, posinf=6)
    (expected,) = fields.crop_record({"depth": whole}, [[0, 0, 8, 8, 0]], (4, 4))
    np.testing.assert_allclose(smaller["depth"], expected["depth"], rtol=1e-3)
    # The filter of the first row ends before the pixel.
    np.testing.assert_array_equal(smaller["depth"][0], expected["depth"][0])


def test_a_map_without_any_value_stays_without():
    depth = np.full((8, 8), np.nan, np.float32)
    (result,) = fields.crop_record({"depth": depth}, [[0, 0, 8, 8, 0]], (4, 4))
    assert np.isnan(result["depth"]).all()


def test_a_normal_that_lacks_a_component_has_no_part_in_its_neighbours():
    normals = np.zeros((4, 4, 3), np.float32)
    normals[..., 2] = 1
    normals[1, 1] = np.nan, 1, 0
    (smaller,) = fields.crop_record({"normal": normals}, [[0, 0, 4, 4, 0]], (2, 2))
    np.testing.assert_allclose(smaller["normal"], np.tile([0.0, 0.0, 1.0], (2, 2, 1)))
    (larger,) = fields.crop_record({"normal": normals}, [[0, 0, 4, 4, 0]], (8, 8))
    lost = np.isnan(larger["normal"]).all(axis=-1)
    assert np.argwhere(lost).tolist() == [[2, 2], [2, 3], [3, 2], [3, 3]]
    np.testing.assert_allclose(larger["normal"][~lost], np.tile([0.0, 0.0, 1.0], (60, 1)))


def test_a_feature_without_a_value_is_missing_in_its_cell_alone():
    features = np.ones((8, 8, 2), np.float32)
    features[3, 4, 0] = np.nan
    sizes = fields.Sizes((64, 64), (64, 64))
    crop = settings.Crop(index=0, count=1, rectangle=(0, 0, 64, 32), flip=False)
    result = fields.CoarseMap()(features, crop, sizes)
    np.testing.assert_array_equal(result, np.ones((8, 8, 2)))
    crop = settings.Crop(index=0, count=1, rectangle=(0, 0, 64, 64), flip=False)
    result = fields.CoarseMap()(features, crop, sizes)
    assert np.argwhere(np.isnan(result)).tolist() == [[3, 4, 0]]


def test_the_last_of_four_channels_is_no_opacity():
    picture = np.zeros((8, 8, 4), np.uint8)
    picture[...] = 200, 100, 50, 0
    (result,) = fields.crop_record({"rgb": picture}, [[0, 0, 8, 8, 0]], (4, 4))
    assert np.unique(result["rgb"].reshape(-1, 4), axis=0).tolist() == [[200, 100, 50, 0]]


def test_what_stands_beside_a_text_is_not_mirrored():
    mirrored = settings.Crop(index=0, count=1, rectangle=(0, 0, 4, 6), flip=True)
    written = [{"caption": "a left turn", "width": 512, "error": None}, "the right one"]
    expected = [{"caption": "a right turn", "width": 512, "error": None}, "the left one"]
    sizes = fields.Sizes((4, 6), (4, 6))
    assert fields.MirroredText()(written, mirrored, sizes) == expected


def test_labels_are_never_mixed():
    labels = np.random.default_rng(0).choice([3, 200], (9, 7)).astype(np.uint8)
    (result,) = fields.crop_record({"semseg": labels}, [[1, 1, 7, 5, 0]], (4, 4))
    assert set(np.unique(result["semseg"])) <= {3, 200}


def test_values_made_per_crop_follow_their_crop():
    value = {"rgb": record()["rgb"], "sam_instance": ["first", "second"]}
    crops = fields.crop_record(value, [*CENTRE, [0, 0, 4, 4, 0]], (4, 4))
    assert [result["sam_instance"] for result in crops] == ["first", "second"]
    with pytest.raises(ValueError, match="crop 2, but only 2 were made"):
        fields.crop_record(value, CENTRE * 3, (4, 4))


def test_poses_are_cropped_and_absent_in_mirrored_crops():
    human = poses.Poses([0, 0, 0.5, 1], np.zeros(8), np.zeros(9), np.zeros(3), np.zeros(10))
    value = {"rgb": record()["rgb"], "human_poses": human}
    plain, mirrored = fields.crop_record(value, [*CENTRE, [0, 1, 4, 4, 1]], (4, 4))
    np.testing.assert_allclose(plain["human_poses"].boxes, [[0, 0, 0.5, 1]])
    assert "human_poses" not in mirrored


def test_the_first_crop_is_the_centre_square_and_the_others_lie_inside():
    crops = settings.sample(np.random.default_rng(0), (40, 60), 200)
    assert crops.shape == (200, 5)
    assert crops.dtype == np.int32
    assert crops[0].tolist() == [0, 10, 40, 40, 0]
    top, left, height, width, flip = crops[1:].T
    assert (top >= 0).all() and (top + height <= 40).all()
    assert (left >= 0).all() and (left + width <= 60).all()
    assert (height * width >= 0.75 * 40 * 60).all()
    assert (np.abs(np.log(width / height)) < np.log(4 / 3) + 0.05).all()
    assert 70 < flip.sum() < 130


def test_a_picture_without_room_for_a_ratio_is_cropped_in_its_middle():
    crops = settings.sample(np.random.default_rng(0), (100, 10), 2)
    assert crops[1, :4].tolist() == [43, 0, 13, 10]


def test_the_same_generator_gives_the_same_crops():
    first, second = (settings.sample(np.random.default_rng(3), (9, 9), 5) for _ in "ab")
    np.testing.assert_array_equal(first, second)


def test_unknown_fields_unequal_pictures_and_bad_settings_are_refused():
    value = record()
    with pytest.raises(ValueError, match="record field 'semsge'; did you mean 'semseg'"):
        fields.crop_record({"semsge": value["semseg"]}, CENTRE, (4, 4))
    with pytest.raises(ValueError, match=r"pictures of sizes .*'rgb': \(4, 6\).*'depth': \(4, 4\)"):
        fields.crop_record({**value, "depth": np.zeros((4, 4))}, CENTRE, (4, 4))
    with pytest.raises(ValueError, match=r"'rgb' has shape \(9,\), expected pixels \[h, w\]"):
        fields.crop_record({"rgb": np.zeros(9, np.uint8)}, CENTRE, (4, 4))  # a file, not decoded
    with pytest.raises(ValueError, match="needs pictures"):
        fields.crop_record({"caption": "a"}, CENTRE, (4, 4))
    with pytest.raises(ValueError, match="rows of top, left >= 0, height, width >= 1"):
        fields.crop_record(value, [[0, 0, 0, 4, 0]], (4, 4))
    with pytest.raises(ValueError, match=r"not all inside a picture of \(4, 6\)"):
        fields.crop_record(value, [[1, 0, 4, 4, 0]], (4, 4))
    with pytest.raises(ValueError, match="0 crops of size"):
        settings.sample(np.random.default_rng(0), (4, 4), 0)


def test_dtypes_that_cannot_be_interpolated_are_refused():
    with pytest.raises(ValueError, match="dtype int64 with resample 'bicubic'; allowed: uint8"):
        images.resize(np.zeros((4, 4), np.int64), (2, 2), "bicubic")
    with pytest.raises(ValueError, match="resample 'cubic', allowed"):
        images.resize(np.zeros((4, 4), np.uint8), (2, 2), "cubic")


def test_boxes_of_any_form_become_boxes():
    value = {"rgb": record()["rgb"], "det": boxes.Boxes([[0, 0, 1, 1]], ["cube"])}
    (result,) = fields.crop_record(value, CENTRE, (4, 4))
    assert result["det"].to_text() == "v0=0 v1=0 v2=999 v3=999 cube"
