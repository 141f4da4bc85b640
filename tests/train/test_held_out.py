"""The loss on held-out records is logged on the way and changes nothing about the run."""

import copy

import jax
import numpy as np
import pytest

from fourm_jax.data.sources import fake
from fourm_jax.data.storage import shard_writer
from fourm_jax.train import held_out, loop, metrics
from fourm_jax.utils import config as config_lib
from tests.train import tiny

ONE = jax.devices()[:1]


def train(config, workdir, evaluators=()):
    return loop.train(config, workdir, show_progress=False, devices=ONE, evaluators=evaluators)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(result with evaluation every three steps, its workdir, result without)."""
    workdir = tmp_path_factory.mktemp("evaluated")
    config = tiny.trunk(eval_every=3)
    evaluated = train(config, workdir, [held_out.make_evaluator(config)])
    return evaluated, workdir, train(tiny.trunk(), tmp_path_factory.mktemp("plain"))


def test_the_loss_on_held_out_records_is_in_the_history(runs):
    _, workdir, _ = runs
    losses = {
        point["step"]: point["eval/loss"]
        for point in metrics.read_history(workdir)
        if "eval/loss" in point
    }
    assert list(losses) == [3, 6]
    assert losses[6] < losses[3]  # random tokens have a distribution to learn, too


def test_evaluation_changes_no_parameter(runs):
    evaluated, _, plain = runs
    jax.tree.map(np.testing.assert_array_equal, evaluated.state.params, plain.state.params)


def test_the_same_records_and_masks_are_used_every_time(runs):
    evaluated, _, _ = runs
    evaluate = held_out.make_evaluator(tiny.trunk(eval_every=3))
    first, second = (dict(evaluate(evaluated.state, 6)) for _ in range(2))
    assert first == second
    assert {"loss", "loss/tok_depth", "accuracy"} <= set(first)


def test_as_in_training_the_next_record_takes_the_place_of_a_bad_one(runs, tmp_path):
    evaluated, _, _ = runs
    names = ("rgb", "tok_depth", "caption")

    source = fake.make_source("test", names=names, num_records=16)
    records = [dict(source[number]) for number in range(16)]
    records[5]["tok_depth"] = np.zeros(3, np.uint16)
    shard_writer.write_split(tmp_path, "test", {}, 1, lambda _: iter(records))
    stored = {
        "data__0__source": "token_shards",
        "data__0__arguments": {"directory": str(tmp_path)},
    }
    tolerant = held_out.make_evaluator(tiny.trunk(eval_every=3, max_left_out_records=1, **stored))
    assert np.isfinite(dict(tolerant(evaluated.state, 3))["loss"])
    strict = held_out.make_evaluator(tiny.trunk(eval_every=3, **stored))
    with pytest.raises(ValueError, match=r"record 5: .*tok_depth"):
        list(strict(evaluated.state, 3))


def test_a_small_data_set_is_evaluated_whole_wherever_it_stands(runs):
    """Three records with captions alone beside many without: 29 + 3 in four batches of 8."""
    evaluated, _, _ = runs
    plain = config_lib.to_json(tiny.trunk(eval_every=3))
    many, few = (copy.deepcopy(plain["data"][0]) for _ in range(2))
    many |= {"name": "many", "fields": {"rgb": "rgb", "tok_depth": "tok_depth"}}
    few |= {"name": "few", "fields": {"caption": "caption"}}
    few["arguments"]["num_records"] = 3
    found = []
    for sets in ((many, few), (few, many)):
        config = config_lib.from_json({**plain, "data": list(sets)})
        found.append(dict(held_out.make_evaluator(config)(evaluated.state, 3)))
    for values in found:
        assert values["loss/caption"] > 0
        assert values["input_tokens/rgb"] > 0
    assert held_out._numbers([100, 3], 8) == [29, 3]
    assert held_out._numbers([100, 100, 100], 8) == [22, 21, 21]
    assert held_out._numbers([3, 4], 8) == [0, 0]


def test_what_cannot_be_evaluated_is_refused():
    with pytest.raises(ValueError, match="eval_every 3 in a config of task 'tokenizer'"):
        held_out.make_evaluator(tiny.tokenizer(eval_every=3))
    few = tiny.trunk(eval_every=3, batch_size=4096)
    with pytest.raises(ValueError, match="fewer held-out records than the 4096 of a batch"):
        held_out.make_evaluator(few)
