"""Masking decisions and counts equal those of the published code, as `verify_reference` sees it."""

import json
import math

import numpy as np
import pytest

from configs import mixtures
from experiments.parity import masking, masking_cases, masking_statistics
from fourm_jax.masking import mixture as mixture_lib
from fourm_jax.modalities import registry
from tests import golden_cases

MIXTURES = {
    "mod7_a0.5": mixtures.mod7_rgb2all,
    "mod7_capbias": mixtures.mod7_capbias,
    "mod21_capT5bias": mixtures.mod21,
}
STATISTICS = [f"stats_{config}" for config in MIXTURES]


def cases(where):
    return dict(masking.cases(where("masking")))


def test_every_part_of_the_recording_ships():
    assert sorted(cases(golden_cases.shipped)) == sorted([*masking_cases.PARTS, *STATISTICS])


@golden_cases.either_set
@pytest.mark.parametrize("part", masking_cases.PARTS)
def test_decisions_are_the_published_ones_given_the_same_draws(where, part):
    golden_cases.assert_all_pass(cases(where)[part])


@pytest.mark.parametrize(
    "config",
    # A third of a minute, and `verify_reference` beside `full_set` takes all of them.
    [pytest.param(n, marks=pytest.mark.full_set) if "mod21" in n else n for n in MIXTURES],
)
def test_counts_of_tokens_spans_and_budgets_are_distributed_as_published(config):
    """budget="reference": 17 modalities, 3 mixtures, 12,288 masks each beside 20,000 published."""
    golden_cases.assert_all_pass(cases(golden_cases.shipped)[f"stats_{config}"])


@pytest.mark.parametrize("config", MIXTURES)
def test_the_mixtures_of_the_configs_are_the_recorded_ones(config):
    path = golden_cases.shipped("masking") / f"stats_{config}.json"
    recorded = json.loads(path.read_text())
    specs = registry.resolve("fourm", recorded["modalities"])
    found, expected = (
        mixture_lib.make_mixture(specs, [mixture])
        for mixture in (MIXTURES[config](), masking_statistics.read_mixture(recorded))
    )
    for field in ("input_alphas", "target_alphas", "keep", "weights"):
        np.testing.assert_allclose(getattr(found, field), getattr(expected, field))
    for field in ("input_range", "target_range"):
        np.testing.assert_array_equal(getattr(found, field), getattr(expected, field))


def test_errors_of_a_distribution_count_in_standard_errors():
    """100 draws of 0 or 2: mean 1, variance 1, so the mean has a standard error of 0.1."""
    draws = np.array([0, 2] * 50)
    recorded = {"mean": 1.3, "var": 1.0, "frac_zero": 0.5, "n": 10**9, "std_err_of_mean": 0.0}
    mean, variance, zeros = masking_statistics.standard_errors(draws, recorded)
    assert mean == pytest.approx((0.3 - masking_statistics.SLACK) / 0.1)
    assert (variance, zeros) == (0, 0)
    _, _, zeros = masking_statistics.standard_errors(draws, {**recorded, "frac_zero": 0.4})
    assert zeros == pytest.approx(0.1 / math.sqrt(0.4 * 0.6 / 100), rel=1e-4)


def test_a_recorded_quantile_may_lie_one_token_beside_ours():
    draws = np.arange(101)
    assert masking_statistics.tokens_outside(draws, {"0": -50, "0.5": 53.5}) == 0
    assert masking_statistics.tokens_outside(draws, {"0.5": 55.5}) == pytest.approx(2)
