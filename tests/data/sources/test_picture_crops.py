"""Crops of a built data set as records of one size."""

import numpy as np
import pytest

from fourm_jax.data import datasets, pipeline
from fourm_jax.data.crops import policy
from fourm_jax.data.sources import picture_crops
from fourm_jax.data.storage import shard_writer


def picture(number):
    """Row r of the picture has the value 10 * number + r // 4."""
    rows = np.arange(16, dtype=np.uint8) // 4 + 10 * number
    rgb = np.broadcast_to(rows[:, None, None], (16, 8 + 4 * number, 3))
    return {"rgb": rgb.copy(), "canny_edge": rgb[..., 0].copy(), "file": f"{number}.png"}


@pytest.fixture
def built(tmp_path):
    shard_writer.write_split(tmp_path, "train", {}, 1, lambda _: (picture(n) for n in range(3)))
    return tmp_path


def open_built(built, **options):
    options = {"image_size": 8, "fields": ("rgb", "canny_edge"), "num_crops": 2, **options}
    return datasets.open_source("picture_crops", "train", {"directory": str(built), **options})


def test_pictures_of_any_shape_become_crops_of_one_size_aligned_over_the_fields(built):
    source = open_built(built)
    assert len(source) == 6
    for index in range(6):
        crop = source[index]
        assert crop["rgb"].shape == (8, 8, 3) and crop["canny_edge"].shape == (8, 8)
        np.testing.assert_array_equal(crop["rgb"][..., 0], crop["canny_edge"])
        assert crop["rgb"].min() // 10 == index // 2  # both crops of a picture, one after the other


def test_the_first_crop_is_the_largest_centred_square(built):
    crop = open_built(built)[0]  # rows 4..11 of a picture of 16 x 8
    np.testing.assert_array_equal(crop["rgb"][:, 0, 0], [1, 1, 1, 1, 2, 2, 2, 2])


def test_the_crops_are_those_that_tokenization_would_make(built):
    source = open_built(built)
    crops = policy.CropPolicy(num_crops=2, size=(8, 8), seed=0)
    for index, one in enumerate(crops.crop_all(picture(1), 1, ("rgb",))):
        np.testing.assert_array_equal(source[2 + index]["rgb"], one["rgb"])


def test_batches_of_raw_crops_can_be_stacked(built):
    dataset = datasets.Dataset(name="pictures", source=open_built(built), fields={})
    batch = next(pipeline.make_raw_batches([dataset], ("rgb",), batch_size=4, seed=0))
    assert batch["rgb"].shape == (4, 8, 8, 3)


NDVI = {"kind": "pixels", "grid": (2, 2), "patch_size": 4, "num_channels": 1, "source": "file"}


def test_fields_of_a_modality_that_a_config_describes_are_cropped_as_it_says(tmp_path):
    rows = ({**picture(n), "ndvi": picture(n)["rgb"][..., 0]} for n in range(3))
    shard_writer.write_split(tmp_path, "train", {}, 1, lambda _: rows)
    ndvi = {**NDVI, "source": "ndvi", "crop": "labels"}
    source = open_built(tmp_path, fields=("rgb", "ndvi"), image_size=4, added={"map": ndvi})
    assert source[0]["ndvi"].tolist() == [[1] * 4, [1] * 4, [2] * 4, [2] * 4]  # every other pixel
    assert source[0]["rgb"].shape == (4, 4, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"added": {"map": {**NDVI, "crop": "label"}}},
            "of modality 'map' 'label'; did you mean 'la",
        ),
        ({"added": {"map": {"source": "file"}}}, "modality 'map' has no kind"),
        ({"fields": ("canny",)}, "'canny'; did you mean 'canny_edge'"),
        ({"fields": ("file",)}, "'file'"),
        ({"num_crops": 0}, "num_crops 0, allowed: 1 and more"),
        ({"image_size": 0}, "image_size 0"),
    ],
)
def test_what_cannot_be_cropped_is_refused_by_name(built, options, message):
    with pytest.raises(ValueError, match=message):
        open_built(built, **options)


def test_an_index_outside_is_refused_and_a_place_names_record_and_crop(built):
    source = picture_crops.make_source(
        "train", directory=built, image_size=8, fields=("rgb",), num_crops=2
    )
    assert "crop 1" in source.place(5)
    with pytest.raises(IndexError, match=r"crop 6, allowed: 0\.\.5"):
        source[6]
