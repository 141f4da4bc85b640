"""Transfers: encoder and head from labels, adapters that learn, labels that are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from configs.finetune import scenes as scenes_config
from fourm_jax.contracts import TokenBatch
from fourm_jax.convert import safetensors_io
from fourm_jax.data import datasets, pipeline
from fourm_jax.data.left_out_log import LeftOutLog
from fourm_jax.data.sources import fake
from fourm_jax.jobs import transfer_eval, transferred
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.models import all_visible, embeddings, lora, think_first, trained
from fourm_jax.train import loop, run_config, transfer_data, transfer_task
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import tree
from tests.models import batches
from tests.train import tiny

ONE = jax.devices()[:1]
MODEL = {"dim": 16, "encoder_depth": 1, "decoder_depth": 1, "num_heads": 2, "mlp_dim": 32}


def config(arg, **changes):
    """A config of scenes that fits the tiny trunk."""
    decode = "" if "decode=" in arg else "decode=none,"
    whole = config_lib.to_json(scenes_config.get_config(f"{arg},{decode}mirror=false,runlocal"))
    whole["model"] = MODEL
    whole["num_steps"] = 2
    whole["optimizer"] |= {"schedule": "constant", "warmup_steps": 0}
    return config_lib.override(config_lib.from_json(whole), changes)


def run(settings, workdir, evaluators=()):
    return loop.train(settings, workdir, show_progress=False, devices=ONE, evaluators=evaluators)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A run folder with a trunk of no training."""
    folder = tmp_path_factory.mktemp("source")
    positions = config_lib.to_json(tiny.trunk(num_steps=0))
    run(config_lib.from_json(positions), folder / "trunk")
    return folder


@pytest.mark.parametrize(
    ("task", "measures"),
    [
        ("cls", {"eval/accuracy"}),
        ("seg", {"eval/miou", "eval/pixel_accuracy"}),
        ("depth", {"eval/mae", "eval/abs_rel", "eval/delta1"}),
        ("count", {"eval/mae", "eval/exact"}),
    ],
)
def test_a_task_trains_and_is_measured_on_every_held_out_scene(task, measures, tmp_path):
    settings = config(f"task={task}")
    result = run(settings, tmp_path, (transfer_eval.make_evaluator(settings),))
    found = {name for name in result.metrics if name.startswith("eval/")}
    assert found == measures
    assert np.isfinite(result.metrics["loss"])


def test_a_head_reads_the_decoder_of_the_source_beside_its_encoder(source, tmp_path):
    settings = config(f"task=seg,init={source},decode=tok_depth", num_steps=0)
    trunk = run(settings, tmp_path).state.params["trunk"]
    kept = trained.read_weights(str(source)).parts["decoder/blocks/feed_forward/fc1/kernel"]
    np.testing.assert_array_equal(trunk["decoder"]["blocks"]["feed_forward"]["fc1"]["kernel"], kept)
    task = run_config.make_task(settings)
    batch = fake.batch(task.inputs, 2)
    features = task.features(trunk, task.show(batch, None), None, train=False)
    decoded = task.model.apply({"params": trunk}, think_first.questions(task.model, batch))
    np.testing.assert_array_equal(features.tokens[:, 64:], decoded)
    np.testing.assert_array_equal(features.grid.reshape(2, 64, 32)[..., 16:], decoded)
    assert features.valid.shape == (2, 128)


def test_a_head_reads_outputs_of_fixed_positions_alone():
    with pytest.raises(ValueError, match="fixed positions, 'caption' is a sequence"):
        run_config.make_task(config("task=seg,decode=caption"))


def test_adapters_learn_and_the_encoder_stays_bit_equal(source, tmp_path):
    settings = config(f"task=cls,init={source},lora=2")
    before = run(config_lib.override(settings, {"num_steps": 0}), tmp_path / "0").state.params
    state = run(settings, tmp_path / "2").state
    for name, leaf in tree.named_leaves(state.params["trunk"]).items():
        np.testing.assert_array_equal(leaf, tree.named_leaves(before["trunk"])[name], err_msg=name)
    changed = lora.by_path(state.params["adapters"])
    assert all(np.any(adapter["b"] != 0) for adapter in changed.values())
    assert not any("/trunk/" in name for name in tree.named_leaves(state.opt_state))


def test_the_encoder_under_adapters_stays_whatever_the_config_freezes(source, tmp_path):
    """`--config.transfer.lora_rank=2` alone."""
    rank = {"transfer.lora_rank": 2}
    settings = config(f"task=cls,init={source}", **rank)
    assert settings.init.freeze == ""
    state = run(settings, tmp_path / "run").state
    transferred.save(settings, state, tmp_path / "saved")
    loaded = transferred.load(tmp_path / "saved")
    before, after = (tree.named_leaves(one["trunk"]) for one in (loaded.params, state.eval_params))
    for name, leaf in after.items():
        np.testing.assert_array_equal(leaf, before[name], err_msg=name)
    with pytest.raises(ValueError, match=r"lora_rank and transfer\.think need a trained"):
        run_config.make_task(config("task=cls", **rank))


def test_merged_adapters_answer_as_unmerged_ones(source):
    task = run_config.make_task(config(f"task=cls,init={source},lora=2"))
    reader = run_config.transfer_reader(config("task=cls"), task, "test")
    rows = [reader.datasets[0].source[index] for index in range(2)]
    batch = reader.combine(rows, [reader.datasets[0]] * 2, [0.0] * 2)
    params, _ = task.init(jax.random.key(0), batch)
    params["head"]["out"]["kernel"] += jax.random.normal(jax.random.key(2), (16, 6))
    params["adapters"] = jax.tree.map(lambda x: x + 0.1, params["adapters"])
    merged = {**params, "trunk": task.trunk_params(params)}
    plain = run_config.make_task(config(f"task=cls,init={source}"))
    np.testing.assert_allclose(plain.predict(merged, batch), task.predict(params, batch), atol=1e-5)


def test_everything_that_exists_is_shown():
    tokens = batches.tokens(batch=1)
    entries = {
        "tok_depth": {"ids": np.array([[3, 1, 0, 6]]), "present": np.array([True])},
        "caption": {"ids": np.array([[5, 9, 1, 0, 0, 0]]), "length": np.array([3])},
        "rgb": {"pixels": tokens.pixels["rgb"], "present": np.array([False])},
        "t5": {"embeddings": tokens.embeddings["t5"], "length": np.array([2])},
    }
    shown = all_visible.show(entries, tuple(entries), batches.SPECS)
    assert isinstance(shown, TokenBatch)
    expected = [True] * 4 + [True] * 3 + [False] * 3 + [False] * 4 + [True, True, False]
    np.testing.assert_array_equal(shown.inputs.valid[0], expected)
    np.testing.assert_array_equal(shown.inputs.id[0, :7], [3, 1, 0, 6, 5, 9, 1])
    np.testing.assert_array_equal(shown.inputs.id[0, -3:], [1, 2, 3])  # 0 is the zero vector
    hidden = entries | {}
    seen = all_visible.show(hidden, ("tok_depth",), batches.SPECS, jnp.array([[False]]))
    assert not seen.inputs.valid.any()
    assert seen.inputs.packed and not shown.inputs.packed  # its first tokens are the valid ones


def test_dropped_inputs_leave_at_least_one():
    kept = transfer_task.keep_some(jax.random.key(0), jnp.ones((200, 3), bool), 0.9)
    assert kept.any(1).all()
    assert kept.mean() < 0.5


def test_what_a_sample_lacks_is_not_what_stays_of_it():
    """A picture alone, of three inputs, is never dropped; of two inputs one stays."""
    present = jnp.array([[True, False, False], [True, False, True]]).repeat(200, axis=0)
    kept = transfer_task.keep_some(jax.random.key(0), present, 0.5)
    assert kept[:200, 0].all()
    assert kept[200:].any(1).all()
    assert not (kept & ~present).any()
    np.testing.assert_allclose(kept[200:].mean(0), [0.625, 0, 0.625], atol=0.1)  # 1/2 + 1/4 · 1/2


def test_a_label_that_does_not_count_leaves_its_partner_its_share_of_a_mixed_picture():
    """Shares 1/4 of class 0 and 3/4 of class 1, of which one or both count; 1/8 and 7/8 likely."""
    logits = jnp.log(jnp.array([[1.0, 7.0]] * 4))
    targets = jnp.array([[0.25, 0.75], [0.25, 0.0], [0.0, 0.75], [0.0, 0.0]])
    expected = -(0.5 * np.log(1 / 8) + 1.5 * np.log(7 / 8)) / 2.0
    np.testing.assert_allclose(transfer_task.class_loss(logits, targets, 0.0), expected, rtol=1e-6)
    smoothed = -(0.75 * np.log(1 / 8) + 1.25 * np.log(7 / 8)) / 2.0  # half of it evenly
    np.testing.assert_allclose(transfer_task.class_loss(logits, targets, 0.5), smoothed, rtol=1e-6)
    assert transfer_task.class_loss(logits, jnp.zeros((4, 2)), 0.1) == 0


@pytest.mark.parametrize("how", [{"transfer.mixup": 1.0}, {"transfer.cutmix": 1.0}])
def test_a_fresh_head_has_the_loss_of_chance_whichever_mixed_labels_count(how):
    """Pairs are the first and last, and the middle two; a fresh head gives all classes 1/6."""
    settings = config("task=cls", **how)
    task = run_config.make_task(settings)
    batch = {**fake.batch(task.inputs, 4), "label": np.array([255, 2, 255, 255], np.int32)}
    params, _ = task.init(jax.random.key(0), batch)
    value, _ = task.loss(params, {}, batch, jax.random.key(1), True)
    np.testing.assert_allclose(value, np.log(6), rtol=1e-5)


LABELS = transfer_task.Labels(problem="class_map", num_outputs=3)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (np.full((4, 4), 7), r"has class 7, allowed: 0..2, and 255 for what does not count"),
        (np.zeros((8, 4), int), r"has shape \(8, 4\), expected \(4, 4\)"),
        (np.zeros((4, 4)), "has dtype float64, expected class indices"),
    ],
)
def test_a_label_that_does_not_fit_is_refused(label, message):
    with pytest.raises(ValueError, match=message):
        transfer_data.label_of({"label": label}, 0, LABELS, (4, 4))


def test_a_label_outside_the_classes_is_refused_before_any_step_and_names_its_record(tmp_path):
    settings = config("task=seg", **{"transfer.num_outputs": 3})
    with pytest.raises(ValueError, match="data set 'labelled', record 0: label 'label' has class"):
        run(settings, tmp_path)
    assert not list(tmp_path.glob("checkpoints/*"))


def folder_of_masks(root, sizes):
    """Pictures with masks of these sizes, one each."""
    for name in ("images", "masks"):
        (root / name).mkdir()
    for number, size in enumerate(sizes):
        Image.new("RGB", (40, 40)).save(root / f"images/{number}.png")
        Image.new("L", size, number % 2).save(root / f"masks/{number}.png")


def test_pictures_and_masks_of_a_folder_are_learned(tmp_path):
    folder_of_masks(tmp_path, [(40, 40)] * 8)
    settings = config(f"task=seg,images={tmp_path},num_classes=2,labels=0,head=dense_linear")
    result = run(settings, tmp_path / "run", (transfer_eval.make_evaluator(settings),))
    assert set(result.metrics) >= {"eval/miou", "eval/pixel_accuracy"}


def test_a_mask_of_another_size_is_one_line_before_any_step(tmp_path):
    folder_of_masks(tmp_path, [(40, 40)] * 6 + [(40, 20)])
    settings = config(f"task=seg,images={tmp_path},num_classes=2,labels=0")
    with pytest.raises(ValueError, match=r"6.png: a mask of \(20, 40\) pixels, its picture has"):
        run(settings, tmp_path / "run")
    assert not (tmp_path / "run/checkpoints").exists()


@pytest.mark.parametrize("most", [transfer_data.MAX_IN_MEMORY, 0])
def test_a_damaged_picture_is_left_out_where_the_config_allows_it(tmp_path, monkeypatch, most):
    monkeypatch.setattr(transfer_data, "MAX_IN_MEMORY", most)
    folder_of_masks(tmp_path, [(40, 40)] * 8)
    (tmp_path / "images" / "0.png").write_bytes(b"no picture")
    whole = f"task=seg,images={tmp_path},num_classes=2,labels=0,head=dense_linear"

    def reader(limit):
        settings = config(whole, max_left_out_records=limit)
        return run_config.transfer_reader(settings, run_config.make_task(settings), "train")

    def count(limit):
        batches = pipeline.one_pass_of(reader(limit), batch_size=6, left_out=LeftOutLog(limit))
        return sum(valid.sum() for _, valid in batches)

    with pytest.raises(ValueError, match=r"data set 'labelled', .*0\.png: unreadable picture"):
        count(0)
    source = reader(1).datasets[0].source
    with pytest.raises(ValueError, match="unreadable picture"):
        source[0]
    assert count(1) == len(source) - 1


def test_a_bad_label_that_no_start_looked_at_is_left_out_of_an_evaluation():
    rows = [{"rgb": np.zeros((4, 4, 3), np.uint8), "label": np.int32(n)} for n in (0, 7, 1)]
    spec = ModalitySpec(name="rgb", kind="pixels", grid=(1, 1), patch_size=4, num_channels=3)
    dataset = datasets.Dataset(name="labelled", source=rows, fields={"rgb": "rgb"})
    classes = transfer_task.Labels(problem="classes", num_outputs=2)
    reader = transfer_data.LabelledTokens((dataset,), (spec,), classes)
    [(batch, valid)] = pipeline.one_pass_of(reader, batch_size=3, left_out=LeftOutLog(1))
    assert batch["label"][valid].tolist() == [0, 1]
    with pytest.raises(ValueError, match="'labelled', record 1: label 'label' has class 7"):
        next(pipeline.one_pass_of(reader, batch_size=3))


def test_masks_in_black_and_white_are_refused_as_white_does_not_count(tmp_path):
    folder_of_masks(tmp_path, [(40, 40)] * 6)
    for path in tmp_path.glob("masks/*"):
        Image.eval(Image.open(path), lambda value: 255 * value).save(path)
    settings = config(f"task=seg,images={tmp_path},num_classes=2,labels=0")
    with pytest.raises(ValueError, match=r"has class 0 and 255, .* black and white need 0 and 1"):
        run(settings, tmp_path / "run")


def test_more_labels_than_there_are_pictures_names_both_counts_and_the_key(tmp_path):
    folder_of_masks(tmp_path, [(40, 40)] * 6)
    settings = config(f"task=seg,images={tmp_path},num_classes=2,labels=64")
    message = r"num_train is 64: data set 'labelled' has ([1-5]) records of 'train', allowed"
    with pytest.raises(ValueError, match=rf"{message}: 1\.\.\1, or 0 for all"):
        run(settings, tmp_path / "run")
    task = run_config.make_task(config("task=cls"))
    with pytest.raises(ValueError, match=r"transfer\.num_test is 5000: .* has 1024 records"):
        run_config.transfer_reader(config("task=cls", **{"transfer.num_test": 5_000}), task, "test")


def test_measures_of_predictions_count_what_has_a_label():
    labels = np.array([[[0, 1], [1, 255]]])
    logits = np.eye(3)[np.array([[[0, 1], [0, 2]]])]
    found = transfer_eval.score(logits, labels, LABELS)
    assert found["pixel_accuracy"] == pytest.approx(2 / 3)
    assert found["miou"] == pytest.approx((1 / 2 + 1 / 2) / 2)
    metres = transfer_task.Labels(problem="value_map", num_outputs=1, mean=1.0, std=2.0)
    found = transfer_eval.score(np.array([[[[0.5], [1.0]]]]), np.array([[[2.0, np.nan]]]), metres)
    assert found == {"mae": 0.0, "abs_rel": 0.0, "delta1": 1.0}


def test_where_there_are_more_than_255_classes_class_255_counts_like_any_other():
    many = transfer_task.Labels(problem="classes", num_outputs=1_000)
    logits = np.eye(1_000, dtype=np.float32)[[7, 3, 999]]
    assert transfer_eval.score(logits, np.array([7, 255, -1]), many) == {"accuracy": 0.5}
    assert transfer_data.label_of({"label": np.int32(-1)}, 0, many, (4, 4)) == -1
    assert transfer_task.Labels(problem="classes", num_outputs=255).ignored == 255


def test_class_255_of_many_is_learned_too(monkeypatch):
    task = run_config.make_task(config("task=cls", **{"transfer.num_outputs": 300}))
    monkeypatch.setattr(transfer_task.TransferTask, "predict", lambda *_, **__: jnp.zeros((2, 300)))
    loss, aux = task.loss({}, {}, {"label": np.array([255, 7])}, jax.random.key(0), False)
    assert loss == pytest.approx(np.log(300)) and aux.metrics["accuracy"][1] == 2


def test_a_batch_without_known_values_is_no_part_of_the_mean_error():
    task = run_config.make_task(config("task=count"))
    _, aux = task._value_loss(jnp.zeros((2, 1)), jnp.full((2, 1), jnp.nan))
    assert aux["mae"][1] == 0


@pytest.mark.parametrize("how", ["mixup", "cutmix"])
def test_a_picture_is_not_mixed_with_one_that_is_not_there(how):
    task = run_config.make_task(config("task=cls", **{f"transfer.{how}": 1.0}))
    (spec,) = task.inputs
    pixels = np.random.default_rng(0).integers(0, 256, (4, *spec.image_shape), np.uint8)
    entry = {"pixels": pixels, "present": np.array([True, True, True, False])}
    mixed, _ = task._mixed(jax.random.key(0), {spec.name: entry}, jnp.eye(4))
    expected = embeddings.normalize(pixels, spec.channel_names)
    np.testing.assert_allclose(mixed[spec.name]["pixels"][0], expected[0], rtol=1e-5, atol=1e-5)
    assert abs(mixed[spec.name]["pixels"][1] - expected[1]).max() > 0.1


def test_mixing_needs_classes_and_pictures():
    with pytest.raises(ValueError, match=r"transfer\.mixup -0\.1, must be at least 0"):
        transfer_task.Labels(problem="classes", num_outputs=3, mixup=-0.1)
    with pytest.raises(ValueError, match="mixup is for problem 'classes' alone"):
        transfer_task.Labels(problem="class_map", num_outputs=3, mixup=0.1)
    with pytest.raises(ValueError, match="change pictures; inputs must all be pixels"):
        run_config.make_task(config("task=cls,inputs=tok_depth", **{"transfer.mixup": 0.1}))


def test_saved_adapters_are_loaded_onto_their_base_and_predict_the_same(source, tmp_path):
    settings = config(f"task=cls,init={source},lora=2")
    state = run(settings, tmp_path / "run").state
    transferred.save(settings, state, tmp_path / "saved")
    loaded = transferred.load(tmp_path / "saved")
    batch = fake.batch(loaded.task.model.modalities, 4)
    expected = loaded.task.predict(state.eval_params, batch).argmax(-1)
    np.testing.assert_array_equal(loaded.predict(batch), expected)
    names = set(safetensors_io.open_weights(tmp_path / "saved" / transferred.WEIGHTS).names)
    assert not any(name.startswith("trunk/") for name in names)


def test_thinking_first_predicts_an_input_and_never_learns_to(source, tmp_path):
    settings = config(f"task=cls,init={source},inputs=think")
    state = run(settings, tmp_path).state
    task = run_config.make_task(settings)
    batch = fake.batch(task.model.modalities[:1], 3)
    thought = think_first.answers(task.thinker, state.params["thinker"], batch)
    assert thought["tok_depth"]["ids"].shape == (3, 64)
    stored = trained.read_weights(str(source)).parts["decoder_embedding/tokens/tok_depth"]
    kept = state.params["thinker"]["decoder_embedding"]["tokens"]
    np.testing.assert_array_equal(kept, stored)
    assert task.predict(state.params, batch).shape == (3, 6)


def test_a_picture_larger_than_the_model_takes_is_predicted_in_tiles(monkeypatch):
    task = run_config.make_task(config("task=seg"))
    batch = fake.batch(task.model.modalities, 1)
    shapes, _ = jax.eval_shape(task.init, jax.random.key(0), batch)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
    model = transferred.Transferred(task, params)
    picture = rng.integers(0, 256, (40, 56, 3), dtype=np.uint8)
    classes = model.predict_large(picture, overlap=8)
    assert classes.shape == (40, 56)
    corner = model.predict(
        {"rgb": {"pixels": picture[None, :32, :32], "present": np.ones(1, bool)}}
    )
    np.testing.assert_array_equal(classes[0, :12], corner[0, 0, :12])  # of the first tile alone
    traced, predict = [], transfer_task.TransferTask.predict

    def counted(self, *arguments):
        traced.append(1)
        return predict(self, *arguments)

    monkeypatch.setattr(transfer_task.TransferTask, "predict", counted)
    monkeypatch.setattr(transferred, "TILES", 3)  # of the four, so the second block is filled up
    again = transferred.Transferred(task, params)
    np.testing.assert_array_equal(again.predict_large(picture, overlap=8), classes)
    assert len(traced) == 1


def test_tiles_are_for_maps_from_a_picture_alone():
    task = run_config.make_task(config("task=cls"))
    with pytest.raises(ValueError, match="from a picture alone to labels of its pixels"):
        transferred.Transferred(task, {}).predict_large(np.zeros((40, 40, 3), np.uint8), 8)
