"""What a recording says about itself is read from it, not assumed."""

import jax
import numpy as np
import pytest

from experiments.parity import masking_statistics, schedulers
from experiments.parity.quantity import Recorded
from fourm_jax.modalities.spec import ModalitySpec

STEPS = {"steps": [{"num_train_timesteps": 500}] * 2}
TABLE = {"betas/linear": np.zeros(250, np.float32)}


@pytest.mark.parametrize(
    ("tensors", "meta", "expected"),
    [
        ({}, STEPS, 500),
        (TABLE, STEPS, 250),
        (TABLE, {**STEPS, "alphas_times": [0, 249]}, 500),
        (TABLE, {**STEPS, "num_train_timesteps": 100}, 100),
        ({}, {"steps": [*STEPS["steps"], {"num_train_timesteps": 1000}]}, None),
    ],
)
def test_the_number_of_training_times_is_that_of_the_recording(tensors, meta, expected):
    assert schedulers.training_times(Recorded(tensors), meta) == expected


def test_times_of_a_sampler_follow_from_the_recorded_training_times():
    (quantity,) = schedulers.timesteps({"timesteps": {"ddim/leading/2": [250, 0]}}, 500)
    assert quantity.found == quantity.expected == [250, 0]


def test_budgets_of_inputs_and_targets_are_drawn_from_their_own_ranges(monkeypatch):
    monkeypatch.setattr(masking_statistics, "NUM_BUDGETS", 64)
    names = ("a", "b")
    specs = tuple(ModalitySpec(name=name, kind="grid", vocab_size=4, grid=(4, 4)) for name in names)
    draw = masking_statistics._budgets(specs, ((2, 4), (7, 7)))
    alphas = np.ones((2, 2), np.float32)
    totals = np.asarray(jax.device_get(draw(alphas, alphas / 2))).sum(axis=2)
    assert set(totals[:, 0]) == {2, 3, 4}
    assert set(totals[:, 1]) == {7}
