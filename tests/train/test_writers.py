"""Metric files without TensorFlow, and the logbook that writes them."""

import dataclasses
import importlib.util
import json
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fourm_jax.parallel import mesh as mesh_lib
from fourm_jax.train import finite, logbook, loop, metrics, state, writers
from tests.train import tiny


def test_a_history_reads_back_what_was_written_without_tensorflow(tmp_path):
    imported = "tensorflow" in sys.modules  # by another test
    writer = writers.make(tmp_path, start=0)
    writer.write(2, {"loss": 1.5})
    writer.write(4, {"loss": 1.25})
    writer.write(4, {"eval/accuracy": 0.5})
    writer.close()
    assert metrics.read_history(tmp_path) == [
        {"step": 2, "loss": 1.5},
        {"step": 4, "loss": 1.25, "eval/accuracy": 0.5},
    ]
    assert ("tensorflow" in sys.modules) == imported


def test_a_continued_run_drops_what_a_killed_one_wrote_after_its_checkpoint(tmp_path):
    path = tmp_path / metrics.HISTORY
    lines = [json.dumps({"step": n, "loss": 1.0 / n}) for n in (2, 4, 6)]
    path.write_text("\n".join(lines) + '\n{"step": 8, "lo')
    writers.JsonlWriter(tmp_path, start=4).close()
    assert [point["step"] for point in metrics.read_history(tmp_path)] == [2, 4]


@pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None,
    reason='TensorBoard is missing: pip install -e ".[tensorflow]"',
)
def test_tensorboard_shows_what_a_run_and_its_continuation_logged(tmp_path):
    from tensorboard.backend.event_processing import event_accumulator
    from tensorboard.util import tensor_util

    for num_steps in (2, 4):
        loop.train(tiny.tokenizer(num_steps=num_steps), tmp_path, show_progress=False)
    shown = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    history = metrics.read_history(tmp_path)
    assert [point["step"] for point in history] == [2, 4]
    assert set(shown.Tags()["scalars"]) == {name for point in history for name in point} - {"step"}
    for name in ("loss", "samples_per_second"):
        events = [(event.step, np.float32(event.value)) for event in shown.Scalars(name)]
        assert events == [(point["step"], np.float32(point[name])) for point in history]
    (config, *_) = shown.Tensors("config")
    assert b"batch_size" in tensor_util.make_ndarray(config.tensor_proto)[0]


class FakeWandb:
    """Notes what its client is told."""

    def __init__(self):
        self.told = []

    def init(self, **options):
        self.told.append(options)
        return self

    def log(self, values, step):
        self.told.append((step, values))

    def finish(self):
        self.told.append("finish")


def test_weights_and_biases_is_told_the_same_under_one_name_per_folder(tmp_path, monkeypatch):
    fake, module = FakeWandb(), types.ModuleType("wandb")
    module.init = fake.init
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setenv(writers.WANDB_PROJECT, "scenes")
    for start in (0, 2):
        writer = writers.make(tmp_path, start=start, config={"seed": 3})
        writer.write(start + 2, {"loss": 1.0})
        writer.close()
    first, point, end, again, *_ = fake.told
    assert (first["project"], first["config"], first["resume"]) == ("scenes", {"seed": 3}, "allow")
    assert (point, end) == ((2, {"loss": 1.0}), "finish")
    assert again["id"] == first["id"]


def test_weights_and_biases_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setenv(writers.WANDB_PROJECT, "scenes")
    with pytest.raises(ValueError, match=r"WANDB_PROJECT .* needs wandb .*fourm_jax\[wandb\]"):
        writers.make(tmp_path, start=0)


def test_a_folder_without_metrics_has_an_empty_history(tmp_path):
    assert metrics.read_history(tmp_path) == []


def state_of(num_skipped, num_steps):
    """State at a log point, `num_skipped` of `num_steps` since the one before without gradient."""
    sums = {"skipped": (jnp.float32(num_skipped), jnp.float32(num_steps))}
    nothing = jnp.zeros((), jnp.int32)
    return state.TrainState(nothing, {}, {}, {}, None, jax.device_put(sums))


def book_in(folder, **options):
    settings = {"start": 0, "num_steps": 1000, "labels": (), "samples_per_step": 1}
    settings |= {"flops_per_sample": None, "show_progress": False, **options}
    return logbook.Logbook(folder, state_of(0, 0), mesh_lib.make_mesh(), **settings)


def test_the_bar_says_which_share_of_the_time_the_run_waited_for_batches(tmp_path, capsys):
    book = book_in(tmp_path, show_progress=True)
    book.note_wait(3600.0)  # more than has passed
    book.take(state_of(0, 10), 10)
    book.flush()
    book.close()
    assert "waiting=100%" in capsys.readouterr().err


def test_a_run_without_finite_gradients_gives_up(tmp_path):
    book = book_in(tmp_path)
    book.take(state_of(10, 10), 10)
    book.flush()
    book.take(state_of(10, 10), 20)
    with pytest.raises(FloatingPointError, match="in 20 of the last 20 steps, up to step 20"):
        book.flush()


def test_a_run_that_skips_most_steps_gives_up_though_some_are_finite(tmp_path):
    book = book_in(tmp_path)
    book.take(state_of(119, 120), 120)
    with pytest.raises(FloatingPointError, match="in 119 of the last 120 steps, up to step 120"):
        book.flush()


def test_steps_skipped_long_ago_do_not_count(tmp_path):
    book = book_in(tmp_path)
    for step in range(50, 1000, 50):
        book.take(state_of(9, 50), step)  # 18 of any 100
        book.flush()
    assert book.values["skipped"] == pytest.approx(9 / 50)


def test_steps_skipped_before_an_evaluation_count_at_the_log_point_behind_it(tmp_path):
    book = book_in(tmp_path)
    book.restart_clock(30)  # after an evaluation at step 30, which is no log point
    book.take(state_of(30, 50), 50)
    with pytest.raises(FloatingPointError, match="in 30 of the last 50 steps, up to step 50"):
        book.flush()


def test_steps_skipped_before_a_run_was_continued_count_at_its_first_log_point(tmp_path):
    book = book_in(tmp_path, start=40)
    book.take(state_of(25, 50), 50)
    with pytest.raises(FloatingPointError, match="in 25 of the last 50 steps, up to step 50"):
        book.flush()


def test_a_run_that_gives_up_names_the_batches_without_a_finite_gradient(tmp_path, capsys):
    book = book_in(tmp_path)
    for batch in range(30):
        skipped = batch in (2, 4, 5) or batch >= 12
        book.note(batch, jnp.float32(jnp.nan if skipped else 1.0))
        if batch == 9:
            book.take(state_of(3, 10), 10)
            book.flush()
    assert (
        "30% of the last steps were skipped (not finite), batches 2, 4-5" in capsys.readouterr().out
    )
    book.take(state_of(18, 20), 30)
    with pytest.raises(FloatingPointError, match=r"up to step 30 \(batches 2, 4-5, 12-29\)"):
        book.flush()


@pytest.mark.parametrize("where", ["params", "model_state", "ema_params"])
def test_what_is_not_finite_is_named_before_it_is_saved(where):
    good = dataclasses.replace(state_of(0, 0), params={"a": jnp.zeros(2)}, ema_params={})
    finite.check(good, 3)
    bad = dataclasses.replace(good, **{where: {"b": jnp.array([1.0, jnp.inf])}})
    with pytest.raises(FloatingPointError, match=f"after step 3 .* the first: {where}/b"):
        finite.check(bad, 3)


def test_pictures_and_texts_of_evaluators_and_histograms_go_to_the_event_files(tmp_path):
    picture = np.zeros((2, 3, 3), np.uint8)

    def evaluator(state, step):
        yield "accuracy", 0.5
        yield "predictions", picture
        yield "captions", "a red cone"

    config = tiny.tokenizer(num_steps=2)
    result = loop.train(
        config, tmp_path, show_progress=False, evaluators=(evaluator,), histograms=True
    )
    assert result.metrics["eval/accuracy"] == 0.5 and "eval/captions" not in result.metrics
    content = b"".join(path.read_bytes() for path in (tmp_path / "tensorboard").iterdir())
    for name in (b"eval/predictions", b"\x89PNG", b"eval/captions", b"a red cone", b"params/"):
        assert name in content
