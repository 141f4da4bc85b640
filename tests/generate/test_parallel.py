"""Dense prediction: several targets at once are what each one is alone."""

import jax.numpy as jnp
import numpy as np
import pytest

from fourm_jax.generate import parallel
from fourm_jax.generate import state as states
from tests.generate import tiny

TARGETS = ("depth", "edge", "vector")


def start(targets, **entries):
    conditions = {**tiny.conditions(2, ("rgb", "caption")), **entries}
    return states.create(conditions, targets, specs=tiny.SPECS)


def test_several_targets_are_bit_equal_to_each_one_alone():
    model, params = tiny.trunk()
    together = parallel.predict(model, params, start(TARGETS), TARGETS)
    assert {name: probs.shape for name, probs in together.items()} == {
        "depth": (2, 9, 11),
        "edge": (2, 9, 7),
        "vector": (2, 4, 5),
    }
    for name in TARGETS:
        alone = parallel.predict(model, params, start([name]), [name])
        np.testing.assert_array_equal(together[name], alone[name])


def test_an_accelerator_packs_what_is_known_and_predicts_the_same(monkeypatch):
    model, params = tiny.trunk()
    plain = parallel.predict(model, params, start(TARGETS), TARGETS)
    with tiny.accelerator(monkeypatch, parallel._predict) as seen:
        packed = parallel.predict(model, params, start(TARGETS), TARGETS)
    (batch,) = seen
    assert batch.inputs.packed
    for name in TARGETS:
        np.testing.assert_allclose(packed[name], plain[name], rtol=1e-4, atol=1e-6)


def test_what_is_known_of_a_target_is_not_read():
    model, params = tiny.trunk()
    plain = parallel.predict(model, params, start(["depth", "edge"]), ["depth", "edge"])
    given = start(["depth"], edge={"ids": np.full((2, 9), 3)})
    again = parallel.predict(model, params, given, ["depth", "edge"])
    for name in ("depth", "edge"):
        np.testing.assert_array_equal(plain[name], again[name])


def test_probabilities_of_every_position_sum_to_one():
    model, params = tiny.trunk()
    probs = parallel.predict(model, params, start(["depth"]), ["depth"])["depth"]
    np.testing.assert_allclose(jnp.sum(probs, axis=-1), 1.0, rtol=1e-5)


def test_a_target_of_another_model_is_refused():
    model, params = tiny.trunk()
    with pytest.raises(KeyError, match="nothing"):
        parallel.predict(model, params, start(["depth"]), ["nothing"])
