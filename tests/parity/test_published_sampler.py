"""Recorded runs of the published sampler, reproduced: three that ship, all with the full set."""

import pytest

from experiments.parity import fm, generation, recorded
from fourm_jax.convert import fourm as convert
from tests import golden_cases

SHIPPED = ("maskgit_cfg", "roar_cfg", "ar_temp_topk")
OTHERS = (
    "maskgit",
    "maskgit_topk_topp",
    "maskgit_temp0_onestep",
    "maskgit_inpaint",
    "roar",
    "ar",
    "ar_cfg",
    "ar_custom_text",
    "chained",
    "multi_guided_maskgit",
    "multi_guided_roar",
)


def compared(folder, name):
    """Every quantity that was recorded of one run, beside ours."""
    trunk = generation.trunk_of(folder)
    model, params = convert.load(trunk, overrides=fm.read_overrides(trunk))
    cases = recorded.read_cases(folder, generation.images(trunk, model))
    (case,) = [case for case in cases if case.name == name]
    return generation.run(case, model, params)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_run_is_reproduced_token_by_token(name):
    golden_cases.assert_all_pass(compared(golden_cases.shipped("generation"), name))


@golden_cases.FULL_SET
@pytest.mark.parametrize("name", OTHERS)
def test_a_run_of_the_full_set_is_reproduced_token_by_token(name):
    golden_cases.assert_all_pass(compared(golden_cases.directory("generation"), name))
