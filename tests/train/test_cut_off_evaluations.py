"""An evaluation that a signal cuts off is made up for by the run that continues."""

import os
import shutil
import signal

import jax
import numpy as np
import pytest

from fourm_jax.train import checkpoint, loop, metrics
from fourm_jax.utils import digests, interrupt, run_folder
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


def keeping_the_best(workdir, losses, stop=0):
    """Steps whose checkpoints stay: the newest and the best; SIGTERM cuts off one evaluation."""

    def evaluate(state, done, stopping=True):
        if done == stop and stopping:
            os.kill(os.getpid(), signal.SIGTERM)
        yield "loss", losses[done]

    config = tiny.tokenizer(checkpoint_every=2, eval_every=2, keep_checkpoints=1).unlock()
    config.keep_best = 1
    if stop:
        with pytest.raises(interrupt.Interrupted, match=f"stopped at step {stop}"):
            run(config, workdir, evaluate)
    run(config, workdir, lambda state, done: evaluate(state, done, stopping=False))
    found = checkpoint.Checkpointer(workdir, keep=1, keep_best=1)
    assert not any(
        digests.damaged(workdir / run_folder.CHECKPOINTS / str(s)) for s in found.steps()
    )
    return found.steps()


@pytest.mark.parametrize("stop", [2, 4, 6])
@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ({2: 1.0, 4: 2.0, 6: 3.0}, [2, 6]),
        ({2: 3.0, 4: 1.0, 6: 2.0}, [4, 6]),
        ({2: 3.0, 4: 2.0, 6: 1.0}, [6]),
    ],
)
def test_the_best_checkpoint_is_the_same_whichever_evaluation_was_cut_off(
    tmp_path, losses, expected, stop
):
    assert keeping_the_best(tmp_path, losses, stop) == expected


def test_the_best_checkpoint_of_an_evaluation_that_failed_has_its_loss_after_it_is_made_up_for(
    tmp_path,
):
    config = tiny.tokenizer(eval_every=2, num_steps=4, keep_checkpoints=1).unlock()
    config.keep_best = 1

    def broken(state, done):
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        run(config, tmp_path, broken)
    run(config, tmp_path, lambda state, done: [("loss", float(done))])
    assert checkpoint.Checkpointer(tmp_path).steps() == [2, 4]


def test_what_is_in_the_history_is_not_evaluated_again(tmp_path):
    config, seen = tiny.tokenizer(eval_every=2, checkpoint_every=2, keep_checkpoints=3), []

    def evaluate(state, done):
        seen.append(done)
        yield "value", float(done)

    run(config, tmp_path, evaluate)
    shutil.rmtree(tmp_path / run_folder.CHECKPOINTS / "6")  # as if killed before it was written
    run(config, tmp_path, evaluate)
    assert seen == [2, 4, 6, 6]
