"""A validation loss is the same over batch sizes and devices, and counts every token once."""

import dataclasses

import jax
import numpy as np
import pytest

from fourm_jax.data.left_out_log import LeftOutLog
from fourm_jax.evals import evaluator
from fourm_jax.evals.evaluator import Context
from fourm_jax.evals.evaluators import val_loss
from fourm_jax.jobs import eval_data
from fourm_jax.parallel import mesh
from tests.evals import tiny_scenes


class Damaged:
    """A source of which some records cannot be read."""

    def __init__(self, source, numbers):
        self.source, self.numbers = source, numbers

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        if index in self.numbers:
            raise ValueError("cut short")
        return self.source[index]


def loss(batch_size, num_devices, damaged=(), allowed=0, **options):
    generator = tiny_scenes.generator()
    if num_devices > 1:
        generator = generator.on_mesh(mesh.make_mesh(devices=jax.devices()[:num_devices]))
    data = tiny_scenes.data()
    (dataset,) = data.datasets(generator.model.modalities, "test", 0)
    context = Context(
        generator=generator,
        datasets=(dataclasses.replace(dataset, source=Damaged(dataset.source, damaged)),),
        left_out=LeftOutLog(allowed),
        read=eval_data.reader(data, generator, "test"),
        masking=eval_data.masking_of(data, generator.model, tiny_scenes.CONFIG),
    )
    evaluates = evaluator.load("val_loss", {"batch_size": batch_size, **options})
    evaluates.check(context)
    return evaluates(context)


@pytest.fixture(scope="module")
def findings():
    return loss(16, 1)


def test_the_loss_is_equal_over_batch_sizes_and_devices(findings):
    alone = dict(findings.values())
    assert {"all/loss", "tok_depth/loss", "caption/accuracy"} <= set(alone)
    for batch_size, num_devices in ((4, 1), (16, 2), (16, 8)):
        other = dict(loss(batch_size, num_devices).values())
        for name, value in alone.items():
            assert other[name] == pytest.approx(value, rel=1e-6), (name, batch_size, num_devices)


def test_bad_records_do_not_count_as_far_as_the_run_allows(findings):
    left = loss(4, 2, damaged=(2, 12), allowed=2)
    assert left.tasks["all"]["n"] == 11 * 12
    others = loss(4, 1, damaged=[n for n in range(13) if n not in (2, 12)], allowed=11)
    assert others.tasks["all"]["n"] == 2 * 12
    both = 11 * left.tasks["all"]["model"] + 2 * others.tasks["all"]["model"]
    assert both / 13 == pytest.approx(findings.tasks["all"]["model"], rel=1e-5)
    with pytest.raises(ValueError, match=r"2 left-out records, allowed: 1 .*record 12: cut"):
        loss(4, 1, damaged=(2, 12), allowed=1)


def test_runs_of_other_masks_can_be_compared_under_the_same_ones(findings):
    same = loss(16, 1, num_inputs=16, num_targets=12, budget="fill", weights="3")
    assert dict(same.values()) == dict(findings.values())
    fewer = loss(16, 1, num_targets=8)
    assert fewer.tasks["all"]["n"] == 13 * 8
    with pytest.raises(ValueError, match=r"weights=\(1.0, 2.0\): the mixture has 1 components"):
        loss(16, 1, weights=(1.0, 2.0))
    with pytest.raises(ValueError, match="unknown option budget 'fil'"):
        loss(16, 1, budget="fil")


def test_all_is_the_mean_over_the_tokens_of_all_modalities(findings):
    tasks = findings.tasks
    parts = [tasks["tok_depth"], tasks["caption"]]
    assert tasks["all"]["n"] == sum(part["n"] for part in parts) == 13 * 12
    mean = sum(part["model"] * part["n"] for part in parts) / tasks["all"]["n"]
    assert tasks["all"]["model"] == pytest.approx(mean)
    low, high = tasks["all"]["interval"]
    assert low < tasks["all"]["model"] < high


def test_the_interval_of_a_rare_modality_is_that_of_the_records_that_have_it():
    """One record of five has it, with a loss of 2: draws without it say nothing."""
    sums = np.zeros((5, 3))
    sums[0] = 20, 3, 10
    entry = val_loss._entry(sums, 0)
    assert (entry["model"], entry["interval"]) == (2, (2, 2))


def test_without_a_mixture_there_is_no_loss():
    generator, data = tiny_scenes.generator(), tiny_scenes.data()
    read = eval_data.reader(data, generator, "test")
    context = Context(generator=generator, datasets=(), read=read)
    with pytest.raises(ValueError, match="val_loss needs a masking mixture"):
        evaluator.load("val_loss", {}).check(context)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": "-1"}, "option seed=-1, allowed: numbers from 0 on"),
        ({"weights": "nan+1"}, "option weights=.nan, 1.0., allowed: numbers from 0 on, not all 0"),
        ({"weights": "0+0"}, "not all 0"),
        ({"type": "knn", "temperature": "0"}, "option temperature=0.0, must be above 0"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        evaluator.load("val_loss", options)
