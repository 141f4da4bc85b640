"""An evaluation that a signal cuts off is made up for by the run that continues."""

import os
import shutil
import signal

import jax
import numpy as np
import pytest

from fourm_jax.train import loop, metrics
from fourm_jax.utils import interrupt, run_folder
from tests.train import tiny

ONE = jax.devices()[:1]


def run(config, workdir, *evaluators):
    return loop.train(config, workdir, show_progress=False, devices=ONE, evaluators=evaluators)


def stop_at(step):
    """Evaluator in which SIGTERM arrives once `step` is reached."""

    def evaluate(state, done):
        if done == step:
            os.kill(os.getpid(), signal.SIGTERM)
        yield "value", float(done)

    return evaluate


def measured(workdir):
    history = metrics.read_history(workdir)
    return {p["step"]: p["eval/value"] for p in history if "eval/value" in p}


def test_an_evaluation_that_was_cut_off_after_the_last_step_is_made_up_for(tmp_path):
    with pytest.raises(interrupt.Interrupted):
        run(tiny.tokenizer(), tmp_path, stop_at(6))
    assert measured(tmp_path) == {}
    result = run(tiny.tokenizer(), tmp_path, lambda state, done: [("value", 7.0)])
    assert result.metrics["eval/value"] == 7.0
    assert measured(tmp_path) == {6: 7.0}


def test_one_on_the_way_comes_before_the_next_step_and_only_once(tmp_path):
    config, seen = tiny.tokenizer(eval_every=2), []

    def evaluate(state, done):
        seen.append((done, int(state.step)))
        yield "value", float(done)

    with pytest.raises(interrupt.Interrupted, match="stopped at step 4 of 6"):
        run(config, tmp_path / "stopped", stop_at(4))
    assert measured(tmp_path / "stopped") == {2: 2.0}
    resumed = run(config, tmp_path / "stopped", evaluate)
    assert seen == [(4, 4), (6, 6)]
    straight = run(config, tmp_path / "straight", evaluate)
    assert measured(tmp_path / "stopped") == measured(tmp_path / "straight")
    jax.tree.map(np.testing.assert_array_equal, resumed.state.params, straight.state.params)


def test_what_is_in_the_history_is_not_evaluated_again(tmp_path):
    config, seen = tiny.tokenizer(eval_every=2, checkpoint_every=2, keep_checkpoints=3), []

    def evaluate(state, done):
        seen.append(done)
        yield "value", float(done)

    run(config, tmp_path, evaluate)
    shutil.rmtree(tmp_path / run_folder.CHECKPOINTS / "6")  # as if killed before it was written
    run(config, tmp_path, evaluate)
    assert seen == [2, 4, 6, 6]
