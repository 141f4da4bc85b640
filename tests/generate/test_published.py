"""Recorded runs of the published sampler, reproduced: three that ship, all with the full set."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from fourm_jax.convert import fourm as convert
from fourm_jax.convert import reference_batch
from fourm_jax.generate import recorded, replay
from tests import golden_cases

SHIPPED = ("maskgit_cfg", "roar_cfg", "ar_temp_topk")
OTHERS = (
    "maskgit", "maskgit_topk_topp", "maskgit_temp0_onestep", "maskgit_inpaint", "roar", "ar",
    "ar_cfg", "ar_custom_text", "chained", "multi_guided_maskgit", "multi_guided_roar",
)  # fmt: skip


def check(cases, name, trunk):
    model, params = convert.load(
        trunk,
        overrides=reference_batch.spec_overrides(
            json.loads((trunk / "modality_overrides.json").read_text())["overrides"]
        ),
    )
    (case,) = [case for case in cases if case.name == name]
    compared = 0
    for quantity in replay.replay(case, model, params):
        if quantity.expected.dtype.kind in "iu":
            np.testing.assert_array_equal(quantity.found, quantity.expected, quantity.name)
        else:
            np.testing.assert_allclose(
                quantity.found, quantity.expected, atol=2e-4, rtol=1e-4, err_msg=quantity.name
            )
        compared += 1
    assert compared > 1


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_run_is_reproduced_token_by_token(name):
    folder = golden_cases.shipped("generation")
    check(recorded.read_cases(folder, {}), name, folder / "trunk")


@pytest.mark.parametrize("name", OTHERS)
def test_a_run_of_the_full_set_is_reproduced_token_by_token(name):
    folder = golden_cases.directory("generation")
    trunk = golden_cases.directory("fm") / json.loads((folder / "meta.json").read_text())["fm_case"]
    rgb = load_file(trunk / "inputs.safetensors")["rgb@224/tensor"][:2]
    check(recorded.read_cases(folder, {"rgb@224": rgb}), name, trunk)
