"""A scene in two sizes: the enlarged small picture and its detail are the large one."""

import numpy as np

from fourm_jax.scenes import detail


class Pictures:
    """Records of noise, as `world.SceneSource` gives them."""

    def __init__(self, side):
        shape = (3, side, side, 3)
        self.rgb = np.random.default_rng(side).integers(0, 256, shape, np.uint8)

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return {"rgb": self.rgb[index], "caption": f"scene {index}"}

    def records(self, indices):
        return {"rgb": self.rgb[list(indices)]}


def test_detail_is_what_the_enlarged_picture_lacks():
    small, large = Pictures(4).rgb, Pictures(8).rgb
    found = detail.of(small, large)
    assert (found.dtype, found.shape) == (np.float32, (3, 8, 8, 3))
    assert np.abs(found).max() <= 1
    np.testing.assert_array_equal(detail.add(small, found), large)
    np.testing.assert_array_equal(detail.add(small, 0 * found), detail.enlarged(small))


def test_a_uniform_picture_stays_uniform_when_it_is_enlarged():
    grey = np.full((1, 4, 4, 3), 90, np.uint8)
    assert (detail.enlarged(grey) == 90).all()


def test_records_have_the_detail_of_the_same_scene_alone_and_in_batches():
    small, large = Pictures(4), Pictures(8)
    source = detail.DetailedSource(small, large)
    assert len(source) == 3
    assert source[1]["caption"] == "scene 1"
    np.testing.assert_array_equal(source[1]["detail"], detail.of(small.rgb, large.rgb)[1])
    batch = source.records([2, 0])
    np.testing.assert_array_equal(batch["detail"], detail.of(small.rgb, large.rgb)[[2, 0]])
