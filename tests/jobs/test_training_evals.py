"""Evaluators of a config run while a trunk trains, and choose its best checkpoint."""

import jax
import pytest

from fourm_jax.jobs import training_evals
from fourm_jax.train import loop, metrics, run_config
from fourm_jax.utils import config as config_lib
from tests import test_docs
from tests.train import tiny

ONE = jax.devices()[:1]


def config(**changes):
    made = tiny.trunk(keep_checkpoints=1, checkpoint_every=2)
    with made.unlocked():
        made.keep_best, made.best_metric, made.best_is = 1, "codes/best", "highest"
        made.evals = {
            "codes": {"type": "codebooks", "every": 2, "num_records": 8},
            "last": {"type": "codebooks", "num_records": 4},
        }
        for key, value in changes.items():
            made[key] = value
    return made


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("evaluated")
    chosen = {2: 3.0, 4: 9.0, 6: 1.0}
    evaluators = [
        *training_evals.make(config(), workdir),
        lambda _, step: [("codes/best", chosen[step])],
    ]
    loop.train(config(), workdir, show_progress=False, devices=ONE, evaluators=evaluators)
    return metrics.read_history(workdir), workdir


def test_each_evaluator_runs_at_its_own_steps_and_after_the_last_one(history):
    points, _ = history
    steps = [p["step"] for p in points if "eval/codes/tok_depth/codebook_usage" in p]
    assert steps == [2, 4, 6]
    assert [p["step"] for p in points if "eval/last/tok_depth/perplexity" in p] == [6]


def test_the_best_checkpoint_follows_the_metric_of_an_evaluator(history):
    _, workdir = history
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["4", "6"]


def test_a_command_line_adds_evaluators_to_those_of_a_config():
    made = training_evals.extended(
        config(), ["val_loss", "last"], ["val_loss.every=2", "last.type=knn"]
    )
    assert set(made.evals) == {"codes", "val_loss", "last"}
    assert made.evals.last.to_dict() == {"type": "knn"}
    assert run_config.eval_periods(made) == (0, 2, 0, 2)
    assert training_evals.extended(config(), [], []) == config()
    with pytest.raises(ValueError, match="--evals is for trunks, this is a 'tokenizer'"):
        training_evals.extended(tiny.tokenizer(), ["val_loss"], [])
    with pytest.raises(ValueError, match="every=often, expected a whole number"):
        training_evals.extended(config(), ["val_loss"], ["val_loss.every=often"])
    with pytest.raises(ValueError, match="unknown evaluator of --option 'val_los'"):
        training_evals.extended(config(), ["val_loss"], ["val_los.every=2"])


@pytest.mark.parametrize(
    ("evals", "message"),
    [
        ({"anytoany": {}}, "unknown evaluator 'anytoany'"),
        ({"codebooks": {"topk": 1}}, "unknown option of evaluator 'codebooks' 'topk'"),
        ({"val_loss": {"batch_size": 0}}, "batch_size=0, must be at least 1"),
    ],
)
def test_what_cannot_be_evaluated_is_one_line_before_any_step(evals, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        training_evals.make(config(evals=evals), tmp_path)


def test_a_best_metric_that_nothing_measures_is_refused():
    with pytest.raises(ValueError, match="unknown evaluator in best_metric 'knn'"):
        run_config.check(config(best_metric="knn/rgb/top1"))
    with pytest.raises(ValueError, match="unknown best_is 'smallest'"):
        run_config.check(config(best_is="smallest"))


def test_any_trunk_takes_the_metric_of_its_best_checkpoint_by_flag():
    path = str(test_docs.ROOT / "configs/scenes.py:size=nano,runlocal")
    changes = {"best_metric": "val_loss/all/loss", "best_is": "lowest", "keep_best": 1}
    made = training_evals.extended(
        config_lib.load(path, changes), ["val_loss"], ["val_loss.every=2"]
    )
    run_config.check(made)
    with pytest.raises(ValueError, match="unknown evaluator in best_metric 'val_loss'"):
        run_config.check(config_lib.load(path, {**changes, "eval_every": 2}))
