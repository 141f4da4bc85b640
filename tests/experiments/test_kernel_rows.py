"""Rows of the suite `kernels`: what every row says, equal to the formula."""

import jax
import pytest

from experiments.benchmarks import kernels

ON_CPU = jax.default_backend() == "cpu"


@pytest.mark.parametrize("case", ["base_attention_ranks", "base_norm", "base_gate"])
def test_every_implementation_of_a_case_gives_the_formula(monkeypatch, case):
    monkeypatch.setattr(kernels, "CALLS", 1)
    monkeypatch.setattr(kernels, "ROUNDS", 1)
    rows = list(kernels.run([case]))
    assert "xla" in [row["kernels"] for row in rows]
    for row in rows:
        assert min(row["both_ms"], row["forward_ms"]) > 0
        assert max(row["relative_error"]) < (1e-5 if ON_CPU else 0.01)


def test_bytes_are_those_of_the_arrays(monkeypatch):
    monkeypatch.setattr(kernels, "CALLS", 1)
    monkeypatch.setattr(kernels, "ROUNDS", 1)
    for row in kernels.run(["base_gate"]):
        (samples, tokens, width), _ = row["shapes"]
        assert (tokens, width) == (256, 2048)
        # a, b, the gradient of the output, the output and two gradients
        size = {"float32": 4, "bfloat16": 2}[row["dtype"]]
        assert row["least_gb"] == round(6 * samples * 256 * 2048 * size / 1e9, 3)


def test_an_unknown_case_is_an_error():
    with pytest.raises(ValueError, match="base_softmax"):
        list(kernels.run(["base_softmax"]))
