"""Recorded trunks of the published implementation: one ships with the repository."""

import functools
import json
import pathlib

import numpy as np
from safetensors.numpy import load_file

from fourm_jax.convert import fourm, reference_batch
from tests import golden_cases

SHIPPED = "fm_registers_causal"
NAMES = (SHIPPED, "fm_gelu_bias_mod7", "fm_swiglu_nobias_mod21", "fm_swiglu_qknorm")


class Case:
    """Model, parameters, tokens and expected numbers of one case."""

    def __init__(self, directory: pathlib.Path):
        self.directory = directory
        self.meta = json.loads((directory / "meta.json").read_text())
        overrides = json.loads((directory / "modality_overrides.json").read_text())["overrides"]
        self.overrides = reference_batch.spec_overrides(overrides)
        self.model, self.params = fourm.load(directory, overrides=self.overrides)
        self.inputs = load_file(directory / "inputs.safetensors")
        self.expected = load_file(directory / "outputs.safetensors")
        self.tokens = reference_batch.from_mod_dict(
            reference_batch.group(self.inputs),
            self.model.modalities,
            input_order=self.meta["encoder_modality_order"],
            target_order=self.meta["decoder_modality_order"],
            num_inputs=self.meta["num_encoder_tokens"],
            num_targets=self.meta["num_decoder_tokens"],
        )

    def index(self, name: str) -> int:
        return [spec.name for spec in self.model.modalities].index(name)

    def valid_inputs(self) -> np.ndarray:
        registers = ((0, 0), (self.model.num_registers, 0))
        return np.pad(self.tokens.inputs.valid, registers, constant_values=True)


@functools.cache
def load(name: str) -> Case:
    """Skips the test where the case is not there."""
    if name == SHIPPED:
        return Case(golden_cases.shipped("fm") / name)
    return Case(golden_cases.directory("fm") / name)
