"""What tells the weights of two models apart."""

import ml_dtypes
import numpy as np
import pytest

from fourm_jax.models import weights


def parameters():
    rng = np.random.default_rng(0)
    shapes = {"tokens": (6, 3), "kernel": (2, 3, 4), "scale": (3,), "step": ()}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def test_a_copy_in_half_precision_has_the_same_fingerprint():
    halves = {name: leaf.astype(ml_dtypes.bfloat16) for name, leaf in parameters().items()}
    assert weights.fingerprint(halves) == weights.fingerprint(parameters())


@pytest.mark.parametrize(
    ("name", "place"), [("tokens", 5), ("kernel", 1), ("scale", 2), ("step", ())]
)
def test_weights_that_differ_in_one_row_or_layer_have_another_fingerprint(name, place):
    """As after the training of an added modality, whose rows lie behind those of the others."""
    trained = parameters()
    trained[name][place] += 1
    assert weights.fingerprint(trained) != weights.fingerprint(parameters())
