"""Every signal of a rendered scene agrees with the parameters of that scene and with each other."""

import functools
import itertools

import jax
import numpy as np
import pytest

from fourm_jax.data.sources import scenes as scenes_source
from fourm_jax.modalities import metadata
from fourm_jax.scenes import caption_scores, edges, image_scores, world
from fourm_jax.scenes import layout as scene_layout
from fourm_jax.scenes import text as scene_text

SIZE = 32
NUM_SCENES = 64
canny = jax.jit(edges.canny)


@functools.cache
def rendered():
    return world.render(np.arange(NUM_SCENES), SIZE)


@functools.cache
def layout():
    return world._sample(np.arange(NUM_SCENES, dtype=np.int32))


def assert_same_scene(first, second):
    for name in (*world.ARRAYS, "caption", "color_palette", "metadata"):
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
    np.testing.assert_array_equal(first["det"]["boxes"], second["det"]["boxes"])
    assert first["det"]["classes"] == second["det"]["classes"]


def scene(records, index):
    return {name: values[index] for name, values in records.items()}


def test_fields_have_the_promised_shapes_types_and_ranges():
    records = rendered()
    for name in ("depth", "normal", "feature", "feature_global", "poses"):
        assert records[name].dtype == np.float32 and np.isfinite(records[name]).all(), name
    for name in ("rgb", "semseg", "instance", "edge", "instance_edge"):
        assert records[name].dtype == np.uint8 and records[name].shape[:3] == (64, SIZE, SIZE), name
    assert records["rgb"].shape == records["normal"].shape == (64, SIZE, SIZE, 3)
    assert records["feature"].shape == (64, SIZE // 4, SIZE // 4, 12)
    assert records["feature_global"].shape == (64, 32)
    assert records["poses"].shape == (64, world.MAX_OBJECTS, len(world.POSE_FIELDS))
    assert records["depth"].min() > 0 and records["depth"].max() == world.FAR
    assert records["semseg"].max() < len(world.CLASSES)
    for name in ("edge", "instance_edge"):
        assert set(np.unique(records[name])) == {0, 255}
    np.testing.assert_allclose(np.linalg.norm(records["normal"], axis=-1), 1, atol=1e-5)


def test_a_scene_does_not_depend_on_its_batch():
    records = rendered()
    alone, shuffled = world.render([37], SIZE), world.render([9, 37, 4], SIZE)
    assert_same_scene(scene(records, 37), scene(alone, 0))
    assert_same_scene(scene(records, 37), scene(shuffled, 1))


def test_every_seed_gives_another_scene():
    pictures = rendered()["rgb"].reshape(NUM_SCENES, -1)
    assert len(np.unique(pictures, axis=0)) == NUM_SCENES


def test_objects_cover_a_fifth_to_a_quarter_of_the_pixels():
    share = np.mean(world.render(np.arange(512), SIZE)["instance"] > 0)
    assert 0.20 <= share <= 0.25


def test_objects_stand_apart():
    drawn = layout()
    for index in range(NUM_SCENES):
        here = np.flatnonzero(drawn.present[index])
        for a, b in itertools.combinations(here, 2):
            gap = np.linalg.norm(drawn.position[index, a] - drawn.position[index, b])
            corners = [
                drawn.half_width[index, k]
                * (2**0.5 if drawn.shape[index, k] == world.SHAPES.index("box") else 1)
                for k in (a, b)
            ]
            assert gap > sum(corners)


def test_ground_depth_and_normal_follow_from_the_camera():
    records, height = rendered(), np.asarray(layout().camera_height)
    pitch = np.asarray(layout().camera_pitch)
    middle = (np.arange(SIZE) + 0.5) / SIZE * 2 - 1
    for index in range(8):
        ground = (records["semseg"][index] == 1) & (records["depth"][index] < world.FAR)
        down = -middle * scene_layout.TAN_HALF_VIEW * np.cos(pitch[index]) - np.sin(pitch[index])
        expected = np.broadcast_to((height[index] / -down)[:, None], (SIZE, SIZE))
        np.testing.assert_allclose(records["depth"][index][ground], expected[ground], rtol=1e-4)
        up = np.array([0, np.cos(pitch[index]), np.sin(pitch[index])])
        np.testing.assert_allclose(
            records["normal"][index][ground], np.broadcast_to(up, (ground.sum(), 3)), atol=1e-5
        )


def test_normals_are_orthogonal_to_the_surface_that_depth_spans():
    records = world.render(np.arange(8), 64)
    middle = ((np.arange(64) + 0.5) / 64 * 2 - 1) * scene_layout.TAN_HALF_VIEW
    depth = records["depth"].astype(np.float64)
    points = np.stack([depth * middle, depth * -middle[:, None], -depth], axis=-1)
    across = points[:, 1:-1, 2:] - points[:, 1:-1, :-2]
    along = points[:, 2:, 1:-1] - points[:, :-2, 1:-1]
    surface = np.cross(along, across)
    surface /= np.linalg.norm(surface, axis=-1, keepdims=True)
    label = records["semseg"].astype(int) * 8 + records["instance"]
    core = label[:, 1:-1, 1:-1]
    for shifted in (
        label[:, 1:-1, 2:],
        label[:, 1:-1, :-2],
        label[:, 2:, 1:-1],
        label[:, :-2, 1:-1],
    ):
        core = np.where(core == shifted, core, -1)
    smooth = (core >= 8) & (records["depth"][:, 1:-1, 1:-1] < world.FAR)
    cosine = np.abs(np.sum(surface * records["normal"][:, 1:-1, 1:-1], axis=-1))[smooth]
    assert np.median(cosine) > 0.999 and np.quantile(cosine, 0.1) > 0.95


def test_points_seen_on_a_sphere_lie_on_it():
    records = rendered()
    middle = ((np.arange(SIZE) + 0.5) / SIZE * 2 - 1) * scene_layout.TAN_HALF_VIEW
    depth = records["depth"].astype(np.float64)
    points = np.stack([depth * middle, depth * -middle[:, None], -depth], axis=-1)
    spheres = 0
    for index in range(NUM_SCENES):
        for rank, name in enumerate(records["det"][index]["classes"]):
            if name == "sphere":
                here = records["instance"][index] == rank + 1
                pose = records["poses"][index, rank]
                offset = points[index][here] - pose[:3]
                np.testing.assert_allclose(np.linalg.norm(offset, axis=-1), pose[5] / 2, atol=1e-3)
                facing = records["normal"][index][here]
                np.testing.assert_allclose(facing, offset / (pose[5] / 2), atol=2e-3)
                spheres += 1
    assert spheres > 10


def test_what_is_nearer_hides_what_is_behind():
    everywhere = np.ones((NUM_SCENES, 1, 1), np.float32)
    in_line = everywhere * np.array([[0.0, 3.5], [0.0, 6.0], [0, 0], [0, 0]], np.float32)
    spheres = layout().replace(
        position=in_line,
        shape=np.zeros((NUM_SCENES, 4), np.int32),
        half_width=np.full((NUM_SCENES, 4), 0.7, np.float32),
        half_height=np.full((NUM_SCENES, 4), 0.7, np.float32),
    )
    views = []
    for present in ([True, True, False, False], [False, True, False, False]):
        here = spheres.replace(present=np.tile(present, (NUM_SCENES, 1)))
        views.append(jax.device_get(world._render(here, SIZE)))
    both, behind = views
    first, second = (np.sum(both.object == index, axis=(1, 2)) for index in range(2))
    assert (first == both.num_unoccluded[:, 0]).all()
    assert (second < both.num_unoccluded[:, 1]).all()
    assert (both.num_unoccluded[:, 1] == np.sum(behind.object == 1, axis=(1, 2))).all()


def test_boxes_enclose_exactly_the_pixels_of_their_instance():
    records = rendered()
    for index in range(NUM_SCENES):
        detections = records["det"][index]
        assert len(detections["boxes"]) == records["num_objects"][index]
        for rank, (box, name) in enumerate(
            zip(detections["boxes"], detections["classes"], strict=True)
        ):
            here = records["instance"][index] == rank + 1
            rows, columns = np.nonzero(here)
            expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_allclose(box * SIZE, expected, atol=1e-4)
            assert set(records["semseg"][index][here]) == {world.CLASSES.index(name)}
            assert here.sum() >= 15


def test_objects_are_sorted_by_visible_area():
    records = rendered()
    for instance, count in zip(records["instance"], records["num_objects"], strict=True):
        areas = np.bincount(instance.ravel(), minlength=5)[1:]
        assert (np.diff(areas[:count]) <= 0).all()


def test_poses_project_into_their_boxes():
    records = rendered()
    for index in range(NUM_SCENES):
        if records["metadata"][index]["occlusion_score"] > 0:
            continue
        for pose, box in zip(records["poses"][index], records["det"][index]["boxes"], strict=False):
            x, y = (pose[:2] / -pose[2] / scene_layout.TAN_HALF_VIEW * [1, -1] + 1) / 2
            assert box[0] - 0.02 <= x <= box[2] + 0.02 and box[1] - 0.02 <= y <= box[3] + 0.02


def test_poses_are_zero_after_the_last_object():
    records = rendered()
    for poses, count in zip(records["poses"], records["num_objects"], strict=True):
        assert (poses[count:] == 0).all() and (poses[:count, -1] > 0).all()


def test_captions_name_the_visible_objects():
    records = rendered()
    for index, text in enumerate(records["caption"]):
        pairs = caption_scores.colour_shape_pairs(text)
        assert len(pairs) == records["num_objects"][index]
        assert sorted(shape for _, shape in pairs) == sorted(records["det"][index]["classes"])
        chosen = np.asarray(layout().present[index])
        known = {
            (list(world.COLOURS)[colour], world.SHAPES[shape])
            for colour, shape in zip(
                np.asarray(layout().colour[index])[chosen],
                np.asarray(layout().shape[index])[chosen],
                strict=True,
            )
        }
        assert pairs <= known and len(text.split()) <= 23


def test_the_longest_caption_has_23_words():
    description = {
        "num_objects": np.array([4]),
        "large": np.zeros((1, 4), bool),
        "colour": np.array([[0, 1, 2, 3]]),
        "shape": np.array([[0, 1, 2, 3]]),
        "poses": np.array([[[0.0] * 7, [0, 0, -3, *[0] * 4]] * 2]),
    }
    text = scene_text.caption(description, 0)
    assert text == (
        "a small red sphere in front of a small orange box and "
        "a small yellow cylinder in front of a small green cone"
    )
    assert len(text.split()) == 23


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((-1, 0, -4), (1, 0, -5), "left of"),
        ((1, 0, -4), (-1, 0, -5), "right of"),
        ((0, 0, -3), (1, 0, -5), "in front of"),
        ((0, 0, -5), (1, 0, -3), "behind"),
    ],
)
def test_relations_are_those_of_the_viewer(first, second, expected):
    assert scene_text.relation(np.array(first), np.array(second)) == expected


def test_pictures_show_the_colours_of_their_captions():
    records = rendered()
    asked = [caption_scores.named_colours(text) for text in records["caption"]]
    assert image_scores.colour_f1(records["rgb"], asked) > 0.95


def test_a_step_gives_one_straight_line_of_edge():
    step = np.zeros((1, 12, 12), np.float32)
    step[:, :, 6:] = 0.8
    edge = np.asarray(canny([np.zeros_like(step), step]))[0]
    assert edge.sum(axis=1).tolist() == [1] * 12
    assert len(set(np.argmax(edge, axis=1))) == 1 and np.argmax(edge[0]) in (5, 6)


def test_a_flat_picture_has_no_edge():
    assert not np.asarray(canny([np.full((1, 12, 12), 0.7, np.float32)] * 2)).any()


def test_instance_edges_lie_where_instances_meet():
    instance = np.zeros((1, 4, 4), np.uint8)
    instance[0, 1:3, 2:] = 1
    expected = [[0, 0, 1, 1], [0, 1, 0, 0], [0, 1, 1, 1], [0, 0, 0, 0]]
    assert np.asarray(edges.boundaries(instance))[0].astype(int).tolist() == expected


def test_palettes_list_dominant_colours_by_share():
    rgb = np.zeros((1, 4, 4, 3), np.uint8)
    rgb[0, 0] = (250, 10, 10)
    rgb[0, 1, 0] = (10, 10, 250)
    bins = np.zeros((1, 4, 4), np.uint8)
    bins[0, 0], bins[0, 1, 0] = 48, 3
    (palette,) = scene_text.palettes(rgb, bins)
    assert palette.tolist() == [[0, 0, 0], [250, 10, 10], [10, 10, 250]]
    assert all(1 <= len(palette) <= 7 for palette in rendered()["color_palette"])


def test_entropy_of_two_equal_halves_is_one_bit():
    grey = np.zeros((1, 2, 4), np.uint8)
    grey[:, 1] = 200
    assert scene_text.entropies(grey).tolist() == [1.0]


def test_metadata_describes_the_picture_and_fits_the_shared_field_table():
    records = rendered()
    luma = records["rgb"] @ np.array([0.299, 0.587, 0.114])
    for index, entry in enumerate(records["metadata"]):
        metadata.Metadata(entry)  # raises if a field is unknown
        assert entry["num_objects"] == records["num_objects"][index]
        assert entry["caption_n_words"] == len(records["caption"][index].split())
        assert entry["brightness"] == pytest.approx(luma[index].mean(), abs=0.1)
        assert entry["contrast"] == pytest.approx(luma[index].std(), abs=0.1)
        assert entry["objectness"] == pytest.approx(np.mean(records["instance"][index] > 0))
        assert entry["camera_height"] == pytest.approx(float(layout().camera_height[index]))


def test_features_are_standardised():
    records = world.render(np.arange(1024, 1536), SIZE)
    for name in ("feature", "feature_global"):
        channels = records[name].reshape(-1, records[name].shape[-1])
        np.testing.assert_allclose(channels.mean(axis=0), 0, atol=0.2, err_msg=name)
        np.testing.assert_allclose(channels.std(axis=0), 1, atol=0.2, err_msg=name)


def test_the_same_seed_is_the_same_scene_at_any_size():
    small, large = rendered(), world.render(np.arange(8), 64)
    for index in range(8):
        assert abs(small["depth"][index].mean() - large["depth"][index].mean()) < 0.1
        assert large["metadata"][index]["camera_height"] == pytest.approx(
            small["metadata"][index]["camera_height"]
        )


def test_train_and_test_scenes_are_disjoint():
    train, test = (scenes_source.make_source(split, num_records=8) for split in ("train", "test"))
    other = scenes_source.make_source("train", num_records=8, seed=1)
    pictures = [source.records(np.arange(8))["rgb"] for source in (train, test, other)]
    assert len(np.unique(np.concatenate(pictures).reshape(24, -1), axis=0)) == 24
    last = world.FIRST_SEED["train"] + 255 * world.MAX_RECORDS + world.MAX_RECORDS - 1
    assert last < world.FIRST_SEED["test"]


def test_records_by_index_equal_records_in_batches():
    source = scenes_source.make_source("train", num_records=70)
    batch = source.records([69, 3])
    assert len(source) == 70
    assert_same_scene(source[69], scene(batch, 0))
    assert_same_scene(source[3], scene(batch, 1))
    assert_same_scene(source[3], scene(rendered(), 3))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"split": "tain"}, "'train'"),
        ({"split": "train", "num_records": 0}, "num_records 0"),
        ({"split": "train", "seed": 256}, "seed 256"),
    ],
)
def test_a_source_outside_its_range_is_refused(arguments, named):
    with pytest.raises(ValueError, match=named):
        scenes_source.make_source(**arguments)


def test_sizes_seeds_and_indices_outside_their_range_are_refused():
    with pytest.raises(ValueError, match="image_size 30"):
        world.render([0], 30)
    with pytest.raises(ValueError, match="-1"):
        world.render([-1], SIZE)
    with pytest.raises(IndexError, match="record 8"):
        scenes_source.make_source("train", num_records=8)[8]
