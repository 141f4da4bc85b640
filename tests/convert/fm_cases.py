"""Recorded trunks of the published implementation: one ships with the repository."""

import functools

import pytest

from experiments.parity import fm
from tests import golden_cases

SHIPPED = "fm_registers_causal"
OTHERS = ("fm_gelu_bias_mod7", "fm_swiglu_nobias_mod21", "fm_swiglu_qknorm")
NAMES = (SHIPPED, *(pytest.param(name, marks=golden_cases.FULL_SET) for name in OTHERS))


@functools.cache
def load(name: str) -> fm.Case:
    """Skips the test where the case is not there."""
    folder = golden_cases.shipped("fm") if name == SHIPPED else golden_cases.directory("fm")
    return fm.Case(folder / name)
