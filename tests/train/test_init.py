"""Starting from weights: what is copied, resized, new and frozen, and what is refused by name."""

import shutil

import jax
import numpy as np
import pytest

from fourm_jax import loading
from fourm_jax.jobs import add_modality
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.models import from_config, parts, trained
from fourm_jax.models.weights import Weights
from fourm_jax.ops import interpolate
from fourm_jax.train import init, loop, run_config
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import interrupt, io, tree
from tests.train import tiny

ONE = jax.devices()[:1]
TEXT = ModalitySpec(name="text", kind="sequence", vocab_size=9, max_tokens=5)
RGB = ModalitySpec(name="rgb", kind="pixels", grid=(4, 4), patch_size=4, num_channels=3)
OLD = r"blocks|norm|context|rgb|tok_depth|text|caption|mask_token|8x8"


def run(config, workdir, **options):
    return loop.train(config, workdir, show_progress=False, devices=ONE, **options)


def grown(source, **init_settings):
    """The tiny trunk with one modality more, from the weights of the one without."""
    names = ("rgb", "tok_edge", "tok_depth", "caption")
    plain = config_lib.to_json(tiny.trunk(num_steps=2, log_every=1))
    plain["modalities"] |= {"inputs": names, "outputs": names[1:]}
    plain["data"][0] |= {
        "arguments": {"names": names},
        "fields": {name: name for name in names},
        "mixture": {
            "input_alphas": dict.fromkeys(names, 1.0),
            "target_alphas": dict.fromkeys(names[1:], 1.0),
        },
    }
    return config_lib.from_json({**plain, "init": {"source": str(source), **init_settings}})


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Workdir of a finished trunk."""
    workdir = tmp_path_factory.mktemp("source")
    run(tiny.trunk(), workdir)
    return workdir


@pytest.fixture(scope="module")
def frozen(source, tmp_path_factory):
    """Workdir and result of two steps in which only the new modality learns."""
    workdir = tmp_path_factory.mktemp("frozen")
    return workdir, run(grown(source, reset="tok_edge", freeze=OLD), workdir)


def parts_of(state, config):
    return parts.split(state.params, run_config.make_task(config).packed)


def test_old_outputs_are_bit_equal_before_the_first_step(source, tmp_path):
    config = config_lib.override(grown(source, reset="tok_edge"), {"num_steps": 0})
    params = run(config, tmp_path).state.params
    old = trained.load(source)
    model = from_config.make_model(config_lib.from_json(old.description.config))
    task = run_config.make_task(tiny.trunk())
    batch = next(run_config.build(tiny.trunk()).batches(0))
    tokens = jax.jit(task.sample)(jax.random.key(1), batch)
    after = from_config.make_model(config)
    moved = add_modality.renumbered(tokens, model, after)
    answers = jax.jit(_answers, static_argnums=0)
    for found, expected in zip(
        answers(after, params, moved), answers(model, old.params, tokens), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def _answers(model, params, tokens):
    """Features of the targets, and what the model says of them in two of its modalities."""
    features = model.apply({"params": params}, tokens)
    logits = (
        model.apply({"params": params}, features, name, method="logits")
        for name in ("tok_depth", "caption")
    )
    return features, *logits


def test_frozen_parts_are_bit_equal_after_steps_and_have_no_optimizer_state(source, frozen):
    workdir, result = frozen
    config = grown(source, reset="tok_edge", freeze=OLD)
    before, after = trained.read_weights(str(source)).parts, parts_of(result.state, config)
    for name, value in before.items():
        np.testing.assert_array_equal(value, after[name], err_msg=name)
    average = parts.split(result.state.ema_params, run_config.make_task(config).packed)
    np.testing.assert_array_equal(average["context/kernel"], before["context/kernel"])
    fresh = parts_of(
        run(config_lib.override(config, {"num_steps": 0}), f"{workdir}-0").state, config
    )
    moved = {name for name in after if not np.array_equal(fresh[name], after[name])}
    assert moved == {name for name in after if "tok_edge" in name}
    moments = {
        name: leaf.shape
        for name, leaf in tree.named_leaves(result.state.opt_state).items()
        if "/mu/" in name
    }
    assert {name.split("/mu/")[1]: shape for name, shape in moments.items()} == {
        "encoder_embedding/tokens": (256, 16),
        "decoder_embedding/tokens": (256, 16),
        "modality_embedding": (1, 16),
    }


def test_the_report_names_what_is_new_and_stays_beside_the_run(frozen):
    report = io.read_json(frozen[0] / "init.json")
    assert report["new"] == [
        "decoder_embedding/tokens/tok_edge",
        "encoder_embedding/tokens/tok_edge",
        "modality_embedding/tok_edge",
    ]
    assert report["resized"] == {} and report["dropped"] == []
    assert "encoder_embedding/tokens/tok_depth" in report["copied"]


def test_a_run_that_was_stopped_continues_without_its_source(source, frozen, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(source, copy)

    def stop(state, done):
        if done == 1:
            raise interrupt.Interrupted("stopped")
        yield "value", 1.0

    config = config_lib.override(grown(copy, reset="tok_edge", freeze=OLD), {"checkpoint_every": 1})
    with pytest.raises(interrupt.Interrupted):
        run(config_lib.override(config, {"eval_every": 1}), tmp_path / "run", evaluators=[stop])
    shutil.rmtree(copy)
    resumed = run(config, tmp_path / "run").state
    for name, leaf in tree.named_leaves(frozen[1].state.params).items():
        np.testing.assert_array_equal(leaf, tree.named_leaves(resumed.params)[name], err_msg=name)


def test_a_mesh_starts_and_freezes_as_one_device_does(source, frozen, tmp_path):
    config = config_lib.override(
        grown(source, reset="tok_edge", freeze=OLD), {"mesh.fsdp": 2, "num_steps": 2}
    )
    devices = jax.devices()[:8]
    state = loop.train(config, tmp_path, show_progress=False, devices=devices).state
    expected = tree.named_leaves(frozen[1].state.params)
    for name, leaf in tree.named_leaves(state.params).items():
        np.testing.assert_allclose(leaf, expected[name], atol=2e-4, err_msg=name)


def test_a_run_from_weights_opens_as_any_run(frozen):
    generator = loading.load_generator(frozen[0])
    assert generator.model.outputs == ("tok_edge", "tok_depth", "caption")


def test_a_part_that_nothing_explains_is_refused_with_its_nearest_candidates(source, tmp_path):
    with pytest.raises(ValueError, match=r"init: '[^']*tok_edge' .* is not there; nearest: .*tok_"):
        run(grown(source), tmp_path)


POSITIONS = "encoder_embedding/positions/table/2x2"
WEIGHTS = Weights(
    parts={
        "encoder_embedding/tokens/text": np.arange(6.0, dtype=np.float32).reshape(3, 2),
        POSITIONS: np.ones((4, 2), np.float32),
        "encoder_embedding/positions/table/caption": np.ones((5, 2), np.float32),
        "encoder_embedding/contents_rgb/kernel": np.arange(24.0, dtype=np.float32).reshape(12, 2),
        "context/kernel": np.ones((2, 2), np.float32),
    },
    specs={
        "rgb": ModalitySpec(name="rgb", kind="pixels", grid=(2, 2), patch_size=2, num_channels=3)
    },
)


def planned(name, shape, specs=(), copied=(), **settings):
    fresh = {f"params/{name}": np.zeros(shape, np.float32)}
    fresh |= {f"params/{one}": np.zeros_like(WEIGHTS.parts[one]) for one in copied}
    found, report = init.plan(fresh, init.Settings(source="RUN", **settings), WEIGHTS, specs)
    return found[f"params/{name}"].rows, report


def test_a_longer_vocabulary_keeps_its_rows_and_appends_the_others():
    rows, report = planned("encoder_embedding/tokens/text", (5, 2))
    np.testing.assert_array_equal(rows, [[0, 1], [2, 3], [4, 5]])
    assert report.resized == {"encoder_embedding/tokens/text": "2 rows appended"}


def test_a_shorter_vocabulary_is_refused():
    with pytest.raises(ValueError, match=r"shape \(3, 2\) there, and no rule converts it"):
        planned("encoder_embedding/tokens/text", (2, 2))


def test_positions_of_another_grid_are_interpolated_and_those_of_a_text_cut():
    rows, report = planned("encoder_embedding/positions/table/4x4", (16, 2))
    np.testing.assert_allclose(rows, np.ones((16, 2)), rtol=1e-6)
    assert report.resized == {"encoder_embedding/positions/table/4x4": "interpolated from 2x2"}
    rows, _ = planned("encoder_embedding/positions/table/caption", (3, 2))
    assert rows.shape == (3, 2)


def test_an_enlarged_picture_gives_the_same_tokens_under_enlarged_patches():
    big = ModalitySpec(name="rgb", kind="pixels", grid=(1, 1), patch_size=4, num_channels=3)
    kernel, _ = planned("encoder_embedding/contents_rgb/kernel", (48, 2), (big,), (POSITIONS,))
    patch = np.random.default_rng(0).normal(size=(2, 2, 3))
    enlarge = interpolate.bicubic_weights(2, 4)
    enlarged = np.einsum("yh,hwc,xw->yxc", enlarge, patch, enlarge)
    old = WEIGHTS.parts["encoder_embedding/contents_rgb/kernel"]
    np.testing.assert_allclose(enlarged.ravel() @ kernel, patch.ravel() @ old, rtol=1e-5)


def test_new_channels_start_at_zero_beside_the_known_ones():
    more = ModalitySpec(name="rgb", kind="pixels", grid=(2, 2), patch_size=2, num_channels=4)
    kernel, report = planned(
        "encoder_embedding/contents_rgb/kernel", (16, 2), (more,), (POSITIONS,)
    )
    by_channel = kernel.reshape(4, 4, 2)
    np.testing.assert_array_equal(by_channel[:, :3].ravel(), np.arange(24.0))
    np.testing.assert_array_equal(by_channel[:, 3], 0)
    (how,) = report.resized.values()
    assert how == "patches (2, 2, 3) to (2, 2, 4)"


def test_one_part_of_the_source_may_start_another_one():
    rows, report = planned(
        "encoder_embedding/tokens/labels", (3, 2), rename={"tokens/labels": "tokens/text"}
    )
    np.testing.assert_array_equal(rows, WEIGHTS.parts["encoder_embedding/tokens/text"])
    assert "encoder_embedding/tokens/text" not in report.dropped


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reset": "no_such"}, "init.reset: 'no_such' matches no part of the new model"),
        ({"rename": {"no_such": "x"}}, "init.rename: 'no_such' matches no part"),
        ({"reset": "context"}, "nothing of RUN is used"),
        ({"reset": "("}, r"'\(' is no regular expression"),
    ],
)
def test_a_selector_that_fits_nothing_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        planned("context/kernel", (2, 2), **settings)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model.num_heads", 4, "model.num_heads is 4, and 2 in"),
        ("model.mlp", "geglu", "model.mlp is 'geglu', and 'swiglu' in"),
    ],
)
def test_weights_that_mean_something_else_are_refused(key, value, message, source, tmp_path):
    plain = config_lib.to_json(grown(source, reset="tok_edge"))
    plain["model"]["mlp"] = "swiglu"  # as by default
    other = config_lib.override(config_lib.from_json(plain), {key: value})
    with pytest.raises(ValueError, match=message):
        run(other, tmp_path)


@pytest.mark.parametrize(
    ("kept", "lost"),
    [
        ("encoder/blocks/feed_forward/fc1/kernel", "encoder/blocks/feed_forward/fc1/bias"),
        ("encoder/norm/scale", "encoder/norm/bias"),
        (
            "decoder/blocks/self_attention/qkv/kernel",
            "decoder/blocks/self_attention/q_norm/scale",
        ),
        ("decoder_embedding/tokens/text", "decoder_embedding/heads/text"),
        ("encoder/blocks/feed_forward/fc1/kernel", "registers"),
        ("encoder_embedding/tokens/text", "encoder_embedding/positions/table/text"),
        ("encoder_embedding/contents_rgb/kernel", "encoder_embedding/positions/table/4x4"),
    ],
)
def test_parts_are_refused_without_those_that_they_were_trained_with(kept, lost):
    specs = {spec.name: spec for spec in (TEXT, RGB)}
    there = Weights(parts={kept: np.ones((2, 2)), lost: np.ones(2)}, specs=specs)
    fresh = {kept: np.zeros((2, 2)), "mask_token": np.zeros(2)}
    settings = init.Settings(source="RUN", reset="mask_token")
    with pytest.raises(ValueError, match=f"init: '{kept}' of RUN was trained with '{lost}', which"):
        init.plan(fresh, settings, there)
    whole, _ = init.plan({**fresh, lost: np.zeros(2)}, settings, there)
    assert set(whole) == {kept, lost}


def test_positions_that_another_size_or_a_modality_that_is_gone_had_may_go():
    table, text = "encoder_embedding/positions/table", "encoder_embedding/tokens/text"
    kernel = "encoder_embedding/contents_rgb/kernel"
    there = Weights(
        parts={
            kernel: np.ones((48, 2)),
            text: np.ones((9, 2)),
            f"{table}/4x4": np.ones((16, 2)),
            f"{table}/8x8": np.ones((64, 2)),
            f"{table}/text": np.ones((5, 2)),
        },
        specs={spec.name: spec for spec in (TEXT, RGB)},
    )
    larger = RGB.replace(grid=(6, 6))
    fresh = {kernel: np.zeros((48, 2)), f"{table}/6x6": np.zeros((36, 2))}
    found, report = init.plan(fresh, init.Settings(source="RUN"), there, (larger,))
    assert set(found) == {*fresh}
    assert report.dropped == (text, f"{table}/4x4", f"{table}/text")


def test_a_transfer_reads_a_decoder_without_its_heads():
    table, heads = (f"decoder_embedding/{name}/text" for name in ("tokens", "heads"))
    there = Weights(parts={table: np.ones((2, 2)), heads: np.zeros((2, 2))})
    settings = init.Settings(source="RUN", rename={"^trunk/": ""})
    found, report = init.plan({f"trunk/{table}": np.zeros((2, 2))}, settings, there)
    assert set(found) == {f"trunk/{table}"} and report.dropped == (heads,)
