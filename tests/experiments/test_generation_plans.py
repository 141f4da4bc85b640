"""Rows of planned cases of the suite `generate`; a CPU's programs stand in for a GPU's."""

import jax
import pytest

from experiments.benchmarking import generation_plans
from experiments.benchmarks import generate
from fourm_jax.modalities import registry
from fourm_jax.models.fourm import FourM
from fourm_jax.parallel import gpus, topology

H200 = gpus.GPUS["h200"]
GRIDS = ("tok_depth@224", "tok_normal@224")


@pytest.fixture
def place(monkeypatch):
    names = (generate.PICTURE, *GRIDS)
    small = FourM(
        modalities=registry.resolve("fourm", names),
        inputs=names,
        outputs=GRIDS,
        dim=16,
        encoder_depth=1,
        decoder_depth=1,
        num_heads=2,
        mlp_dim=32,
    )
    monkeypatch.setattr(generate, "trunk", lambda size, mix, platform: small)
    here = jax.devices()[:1]
    return topology.Topology(name="here", devices=here, memory_bytes=H200.memory_bytes, gpu=H200)


def plan(monkeypatch, place, **changes):
    case = generate.Case(name="planned", **changes)
    monkeypatch.setattr(generate, "all_cases", lambda on_accelerator: [case])
    (row,) = generation_plans.run(["base_planned"], place)
    return row


def test_a_chain_is_the_sum_of_its_calls(monkeypatch, place):
    row = plan(monkeypatch, place, targets=GRIDS[:1], num_passes=2)
    assert (row["case"], row["topology"], row["batch"]) == ("base_planned", "here", 1)
    assert (row["num_programs"], row["calls"]) == (2, 2)  # without and with the tokens of the first
    kernels = [one["least_ms"]["sum"]["kernels"] for one in row["programs"]]
    assert row["least_ms"]["sum"]["kernels"] == sum(kernels) > 0


def test_targets_from_one_pass_are_compared_with_a_pass_for_each(monkeypatch, place):
    row = plan(monkeypatch, place, targets=GRIDS, parallel=True)
    assert (row["num_programs"], row["one_by_one"]["num_programs"]) == (1, 2)
    together, others = row["least_ms"]["sum"], row["one_by_one"]["least_ms"]["sum"]
    assert together["kernels"] < others["kernels"]  # the encoder runs once
    assert [one["name"] for one in row["programs"]] == ["predict", *GRIDS]


@pytest.mark.parametrize("named", [["base_caption64_b1", "base_nope"], []])
def test_an_unknown_case_is_refused_with_those_that_there_are(named):
    with pytest.raises(ValueError, match=r"unknown case .*Allowed: .*base_all_b1"):
        generation_plans.check(named)
