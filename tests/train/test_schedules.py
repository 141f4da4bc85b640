"""Learning rates against the published tables, and the published token accounting."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.parity import lr_schedules as verify
from fourm_jax.train import schedules
from tests import golden_cases

CASES = json.loads((golden_cases.shipped("lr_schedules") / "lr_schedules.json").read_text())


def values(schedule, num_steps):
    return np.asarray(jax.vmap(schedule)(jnp.arange(num_steps)))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["function"])
def test_rates_equal_the_published_tables(case):
    golden_cases.assert_all_pass(verify.check(case))


def test_wsd_rises_stays_and_falls():
    schedule = schedules.make(
        "wsd", lr=1.0, min_lr=0.1, num_steps=10, warmup_steps=3, cooldown_steps=4
    )
    expected = [0, 0.5, 1, 1, 1, 1, 1, 0.7, 0.4, 0.1]
    np.testing.assert_allclose(values(schedule, 10), expected, atol=1e-6)


def test_steps_beyond_the_end_keep_the_last_rate():
    schedule = schedules.make("wsd", lr=1.0, num_steps=10, cooldown_steps=4, min_lr=0.1)
    assert schedule(500) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "cosin"}, "unknown schedule 'cosin'; did you mean 'cosine'"),
        ({"name": "wsd", "warmup_steps": 8, "cooldown_steps": 3}, "do not fit into num_steps 10"),
        ({"name": "cosine", "cooldown_steps": 3}, "no cool-down"),
    ],
)
def test_impossible_schedules_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        schedules.make(**arguments, lr=1.0, num_steps=10)


@pytest.mark.parametrize(
    ("num_tokens", "tokens_per_sample", "batch_size", "num_steps"),
    [(500e9, 256, 8192, 239_120), (500e9, 512, 4096, 239_218), (100e9, 2048, 4096, 12_205)],
)
def test_steps_of_the_published_runs(num_tokens, tokens_per_sample, batch_size, num_steps):
    assert num_steps == schedules.steps_for_tokens(
        num_tokens, tokens_per_sample=tokens_per_sample, batch_size=batch_size
    )


def test_warmup_of_the_published_runs():
    assert schedules.warmup_for_tokens(10e9, tokens_per_sample=256, batch_size=8192) == 4769
    assert schedules.warmup_for_tokens(5e9, tokens_per_sample=2048, batch_size=4096) == 597
