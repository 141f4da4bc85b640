"""What a transfer reads: raw inputs in one line, channels by name, rows that lack some, depths."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fourm_jax import loading
from fourm_jax.convert import safetensors_io
from fourm_jax.data import channels, datasets, in_memory
from fourm_jax.data.sources import fake
from fourm_jax.data.storage.left_out import RecordError
from fourm_jax.jobs import transferred
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.models import embeddings, from_config, parts
from fourm_jax.models.weights import Weights
from fourm_jax.scenes import labels
from fourm_jax.train import init, run_config, transfer_data, transfer_task
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import io, tree
from tests.jobs import untrained
from tests.train import tiny
from tests.train.test_transfer import config, run

RGB = ModalitySpec(name="rgb", kind="pixels", grid=(1, 1), patch_size=1, num_channels=3)
KERNEL = "encoder_embedding/contents_rgb/kernel"
COLOURS = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]], np.float32)  # red, green, blue
POSES = {
    "encoder_embedding/contents_poses/bias",
    "encoder_embedding/contents_poses/kernel",
    "modality_embedding/poses",
}
SOURCE = Weights(
    parts={KERNEL: COLOURS, "modality_embedding/rgb": np.ones((1, 2))}, specs={"rgb": RGB}
)


def kernel_of(spec):
    name = f"encoder_embedding/contents_{spec.name}/kernel"
    shape = (spec.patch_size**2 * spec.num_channels, 2)
    fresh = {name: np.zeros(shape), f"modality_embedding/{spec.name}": np.zeros((1, 2))}
    found, report = init.plan(fresh, init.Settings(source="RUN"), SOURCE, (spec,))
    np.testing.assert_array_equal(found[f"modality_embedding/{spec.name}"].rows, np.ones((1, 2)))
    return found[name].rows, report.resized.get(name, "copied")


def with_inputs(*inputs):
    whole = config_lib.to_json(config("task=cls"))
    whole["modalities"]["inputs"] = list(inputs)
    return config_lib.from_json(whole)


def test_channels_start_from_those_of_the_same_name():
    kernel, how = kernel_of(RGB.replace(channels=("blue", "nir", "red")))
    np.testing.assert_array_equal(kernel, [[3.0, 30.0], [0.0, 0.0], [1.0, 10.0]])
    assert how == "patches (1, 1, 3) to (1, 1, 3), channels from zero: nir"
    kernel, how = kernel_of(RGB.replace(channels=("red", "green", "blue")))
    np.testing.assert_array_equal(kernel, COLOURS)
    assert how == "copied"


def test_a_new_picture_starts_from_a_known_one_and_counts_as_much():
    ndvi = ModalitySpec(
        name="ndvi", kind="pixels", grid=(1, 1), patch_size=1, num_channels=1, source="ndvi"
    )
    kernel, how = kernel_of(ndvi)
    np.testing.assert_array_equal(kernel, [[6.0, 60.0]])
    assert how == "patches (1, 1, 3) to (1, 1, 1), the mean of the channels of rgb"
    kernel, _ = kernel_of(ndvi.replace(num_channels=2))
    np.testing.assert_array_equal(kernel, [[3.0, 30.0], [3.0, 30.0]])


def test_channels_belong_to_pictures_and_have_different_names():
    with pytest.raises(ValueError, match="allowed: different names"):
        RGB.replace(channels=("red", "red"))
    with pytest.raises(ValueError, match="of kind 'pixels', not 'global'"):
        ModalitySpec(name="x", kind="global", vocab_size=4, max_tokens=1, channels=("red",))


BANDS = np.arange(4, dtype=np.uint8) * np.ones((2, 2, 1), np.uint8)  # of value 0, 1, 2, 3


def picked(held, record, spec=RGB):
    source = in_memory.Rows([record])
    dataset = datasets.Dataset(name="bands", source=source, fields={"rgb": "picture"})
    return channels.pick(dataset, {"rgb": held}, (spec,)).source


def test_a_colour_is_normalized_alike_whatever_stands_beside_it():
    white = np.full((1, 1, 1, 3), 255, np.uint8)
    red, _, blue = np.asarray(embeddings.normalize(white, RGB.channel_names))[0, 0, 0]
    found = np.asarray(embeddings.normalize(white, ("depth", "blue", "red")))[0, 0, 0]
    np.testing.assert_array_equal(found, [1.0, blue, red])
    assert red == pytest.approx((1 - 0.485) / 0.229)
    np.testing.assert_array_equal(embeddings.normalize(white[..., :1], ()), [[[[1.0]]]])


def test_a_model_of_scenes_learns_from_depth_as_a_fourth_channel(base, tmp_path):
    settings = config(f"task=seg,init={base},inputs=rgbd", num_steps=0)
    kernel = run(settings, tmp_path).state.params["trunk"]["encoder_embedding"]["contents_rgb"]
    rows = np.asarray(kernel["kernel"]).reshape(4, 4, 4, 16)
    stored = loading.weights(str(base)).parts[KERNEL]
    np.testing.assert_array_equal(rows[..., :3, :], stored.reshape(4, 4, 3, 16))
    np.testing.assert_array_equal(rows[..., 3, :], 0)
    scene = {"rgb": np.zeros((1, 2, 3), np.uint8), "depth": np.array([[5.0, 20.0]])}
    np.testing.assert_array_equal(labels.with_depth(scene)[0], [[0, 0, 0, 128], [0, 0, 0, 255]])


def test_a_model_reads_the_channels_that_it_knows_in_its_own_order():
    held = ("blue", "nir", "green", "red")
    record = picked(held, {"picture": BANDS, "label": 7})[0]
    np.testing.assert_array_equal(record["picture"][0, 0], [3, 2, 0])
    assert record["label"] == 7
    assert "picture" not in picked(held, {"label": 7})[0]


def test_channels_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="data set 'bands', channels of 'rgb' 'red'"):
        picked(("blue", "green", "reed"), {})
    with pytest.raises(RecordError, match=r"'picture' has shape \(2, 2, 4\), expected 3 channels"):
        picked(("blue", "green", "red"), {"picture": BANDS})[0]
    with pytest.raises(ValueError, match="data set 'bands', channels of 'rgb'"):
        picked(("a", "b"), {}, RGB.replace(num_channels=2))


def test_a_raw_input_is_one_line_of_a_config():
    settings = with_inputs(
        "rgb", {"name": "ndvi", "channels": 1}, {"name": "weather", "width": 5, "length": 2}
    )
    rgb, ndvi, weather = from_config.resolve_specs(settings)
    assert (ndvi.kind, ndvi.image_shape, ndvi.source) == ("pixels", (32, 32, 1), "ndvi")
    assert (weather.kind, weather.embedding_dim, weather.max_tokens) == ("embedding", 5, 2)
    task = run_config.make_task(settings)
    shapes, _ = jax.eval_shape(task.init, jax.random.key(0), fake.batch(task.model.modalities, 2))
    kernels = shapes["trunk"]["encoder_embedding"]
    assert kernels["contents_ndvi"]["kernel"].shape == (16, 16)
    assert kernels["contents_weather"]["kernel"].shape == (5, 16)
    assert from_config.input_names(settings) == ("rgb", "ndvi", "weather")
    assert rgb.name == "rgb"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A run folder with a trunk of no training."""
    folder = tmp_path_factory.mktemp("base")
    run(tiny.trunk(num_steps=0), folder / "trunk")
    return folder


def test_a_model_starts_with_raw_inputs_that_it_does_not_know(base, tmp_path):
    whole = config_lib.to_json(config(f"task=cls,init={base}"))
    inputs = ["rgb", {"name": "edge", "channels": 1}, {"name": "poses", "width": 7, "length": 4}]
    whole["modalities"]["inputs"] = inputs
    whole["init"]["reset"] += "|[/_]poses(/|$)"
    whole["data"][0]["fields"] = {name: name for name in ("rgb", "edge", "poses")}
    result = run(config_lib.from_json(whole), tmp_path)
    report = io.read_json(tmp_path / "init.json")
    assert set(report["resized"]) == {"trunk/encoder_embedding/contents_edge/kernel"}
    assert "trunk/modality_embedding/edge" in report["copied"]
    assert "trunk/encoder_embedding/contents_poses/kernel" in report["new"]
    assert np.isfinite(result.metrics["loss"])


def test_what_a_base_lacks_learns_beside_adapters_and_is_saved_with_them(base, tmp_path):
    whole = config_lib.to_json(config(f"task=cls,init={base},lora=2"))
    whole["modalities"]["inputs"] = ["rgb", {"name": "poses", "width": 7, "length": 4}]
    whole["init"]["reset"] += "|[/_]poses(/|$)"
    whole["init"]["rename"] |= {"modality_embedding/rgb": "modality_embedding/tok_depth"}
    whole["data"][0]["fields"] = {"rgb": "rgb", "poses": "poses"}
    settings = config_lib.from_json(whole)
    state = run(settings, tmp_path / "run").state
    before = run(config_lib.override(settings, {"num_steps": 0}), tmp_path / "0").state.params
    packed = parts.packed_tables(run_config.make_task(settings).model)
    old, new = (parts.split(one["trunk"], packed) for one in (before, state.params))
    assert {name for name in new if not np.array_equal(new[name], old[name])} == POSES
    transferred.save(settings, state, tmp_path / "saved")
    loaded = tree.named_leaves(transferred.load(tmp_path / "saved").params["trunk"])
    for name, leaf in tree.named_leaves(state.eval_params["trunk"]).items():
        np.testing.assert_array_equal(loaded[name], leaf, err_msg=name)
    names = safetensors_io.open_weights(tmp_path / "saved" / transferred.WEIGHTS).names
    assert {name for name in names if name.startswith("trunk/")} == {f"trunk/{p}" for p in POSES}


def test_what_would_stay_as_it_was_drawn_is_refused(base, tmp_path):
    channel = config(f"task=seg,init={base},inputs=rgbd,lora=2")
    kernel = "'trunk/encoder_embedding/contents_rgb/kernel' (patches"
    with pytest.raises(ValueError, match=re.escape(kernel) + ".*zero: depth.* never learn under"):
        run(channel, tmp_path / "channel")
    whole = config_lib.to_json(config(f"task=cls,init={base}"))
    whole["modalities"]["inputs"] = ["rgb", {"name": "poses", "width": 7, "length": 4}]
    whole["init"] |= {"reset": whole["init"]["reset"] + "|[/_]poses(/|$)", "freeze": "^trunk/"}
    whole["data"][0]["fields"] = {"rgb": "rgb", "poses": "poses"}
    with pytest.raises(ValueError, match=r"starts anew\) would never learn: take it out of"):
        run(config_lib.from_json(whole), tmp_path / "vector")


@pytest.mark.parametrize(
    ("one", "message"),
    [
        ({"channels": 1}, "is no name and has none"),
        ({"name": "ndvi"}, "raw input 'ndvi': say channels of a picture, or a width"),
        ({"name": "ndvi", "chanels": 1}, "'raw input.chanels'; did you mean"),
        ({"name": "ndvi", "channels": 1, "width": 2}, "say channels of a picture, or a width"),
    ],
)
def test_a_raw_input_that_says_too_little_is_refused(one, message):
    with pytest.raises(ValueError, match=message):
        run_config.make_task(with_inputs("rgb", one))


def test_rows_may_lack_an_input_and_then_do_not_depend_on_it():
    settings = with_inputs("rgb", {"name": "ndvi", "channels": 1})
    task = run_config.make_task(settings)
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (32, 32, 3), np.uint8)
    map_ = rng.integers(0, 256, (32, 32), np.uint8)
    rows = [{"rgb": picture, "ndvi": map_, "label": 2}, {"rgb": picture, "label": np.int32(2)}]
    rows[0]["label"] = np.int32(2)
    dataset = datasets.Dataset(
        name="mixed", source=in_memory.Rows(rows), fields={"rgb": "rgb", "ndvi": "ndvi"}
    )
    reader = transfer_data.LabelledTokens((dataset,), task.model.modalities, task.labels_of)
    batch = reader.combine(rows, [dataset] * 2, [0.0] * 2)
    np.testing.assert_array_equal(batch["ndvi"]["present"], [True, False])
    shapes, _ = jax.eval_shape(task.init, jax.random.key(0), batch)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
    predict = jax.jit(task.predict)
    before = predict(params, batch)
    batch["ndvi"] = {**batch["ndvi"], "pixels": 255 - batch["ndvi"]["pixels"]}
    after = predict(params, batch)
    assert not np.allclose(before[0], after[0])
    np.testing.assert_array_equal(before[1], after[1])


def test_a_pyramid_reads_the_blocks_that_it_names():
    whole = config_lib.to_json(config("task=seg"))
    whole["model"] |= {"encoder_depth": 2}
    whole["transfer"]["head"] = {"name": "dense_pyramid", "depths": [1, 2], "dim": 4}
    task = run_config.make_task(config_lib.from_json(whole))
    batch = fake.batch(task.model.modalities, 2)
    params, _ = jax.jit(task.init)(jax.random.key(0), batch)
    features = task.features(params["trunk"], task.show(batch, None), None, train=False)
    assert [level.shape for level in features.levels] == [(2, 8, 8, 16)] * 2
    last = features.levels[1]  # the final norm of the last block's features are the features
    mean, var = last.mean(-1, keepdims=True), last.var(-1, keepdims=True)
    np.testing.assert_allclose((last - mean) / jnp.sqrt(var + 1e-6), features.grid, atol=1e-3)
    assert task.predict(params, batch).shape == (2, 32, 32, 6)


def test_depths_that_the_encoder_lacks_are_refused():
    head = {"name": "dense_pyramid", "depths": [1, 3]}
    with pytest.raises(ValueError, match=r"head.depths: 3, allowed: 1..1, the blocks"):
        run_config.make_task(config("task=seg", **{"transfer.head": head}))


def test_half_of_the_pictures_are_mirrored_with_their_masks():
    task = run_config.make_task(config("task=seg", **{"transfer.mirror": True}))
    ramp = np.arange(32, dtype=np.uint8)
    pixels = np.broadcast_to(ramp[None, None, :, None], (64, 32, 32, 3))
    batch = {"rgb": {"pixels": pixels, "present": np.ones(64, bool)}}
    labels = np.broadcast_to(ramp[None, None], (64, 32, 32)).astype(np.int32)
    turned, masks = task._mirrored(jax.random.key(0), batch, labels)
    np.testing.assert_array_equal(turned["rgb"]["pixels"][..., 0], masks)
    flipped = masks[:, 0, 0] == 31
    assert 16 < flipped.sum() < 48
    with pytest.raises(ValueError, match="mirror change pictures; inputs must all be pixels"):
        run_config.make_task(config("task=cls,inputs=tok_depth", **{"transfer.mirror": True}))


@pytest.mark.parametrize(
    "changes",
    [
        {"transfer.label_smoothing": 0.3},
        {"transfer.mixup": 1.0},
        {"transfer.cutmix": 1.0},
        {"transfer.mirror": True},
        {"transfer.modality_dropout": 0.9, "modalities.inputs": ("rgb", "tok_depth")},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_is_set_for_training_changes_the_training_alone(changes):
    inputs = {key: value for key, value in changes.items() if key == "modalities.inputs"}
    plain = run_config.make_task(config("task=cls", **{"transfer.label_smoothing": 0.0}, **inputs))
    task = run_config.make_task(config("task=cls", **{"transfer.label_smoothing": 0.0, **changes}))
    batch = fake.batch(plain.model.modalities, 8) | {transfer_task.LABEL: np.arange(8) % 6}
    shapes, _ = jax.eval_shape(plain.init, jax.random.key(0), batch)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)

    def loss(task, train):
        return float(task.loss(params, {}, batch, jax.random.key(1), train)[0])

    assert abs(loss(task, True) - loss(plain, True)) > 1e-3
    assert loss(task, False) == loss(plain, False)


def test_a_record_whose_signal_no_tokenizer_takes_is_left_out_where_some_may_be(
    tmp_path, monkeypatch
):
    edge = {"axes": "hw", "dtype": "uint8", "kind": "binary", "low": 0, "high": 255}
    untrained.save(tmp_path, "edge", edge)
    tokens = ModalitySpec(
        name="tok_edge", kind="grid", grid=(8, 8), vocab_size=256, source="edge", tokenizer="edge"
    )
    rows = [
        {
            "rgb": np.zeros((1, 1, 3), np.uint8),
            "edge": np.zeros((32, 32), kind),
            "label": np.int32(0),
        }
        for kind in (np.uint8, np.float32, np.uint8)
    ]
    fields = {"rgb": "rgb", "tok_edge": "tok_edge"}
    dataset = datasets.Dataset(name="labelled", source=in_memory.Rows(rows), fields=fields)
    monkeypatch.setattr(datasets, "make_datasets", lambda *_: (dataset,))

    def reader(limit):
        classes = transfer_task.Labels(problem="classes", num_outputs=2)
        folder = str(tmp_path)
        return transfer_data.open_reader(
            [{}], "train", (RGB, tokens), classes, tokenizers=folder, max_left_out_records=limit
        )

    source = reader(1).datasets[0].source
    assert source[0]["tok_edge"].shape == source[2]["tok_edge"].shape == (64,)
    with pytest.raises(RecordError, match=r"input 'tok_edge': .*got dtype float32"):
        source[1]
    with pytest.raises(ValueError, match="data set 'labelled', record 1: input 'tok_edge'"):
        reader(0)
