"""Rows of the suite `generate`: operations counted by hand, and what every row says."""

import pytest

from experiments.benchmarking import operations, yardsticks
from experiments.benchmarks import generate
from fourm_jax.generate.schedule import Step
from fourm_jax.modalities import registry
from fourm_jax.models.fourm import FourM

# One layer each, 16 channels, hidden 32, a head of 256: of n inputs and m targets
#   encoder 2 (n (4·16² + 3·16·32) + 2 n² 16 + n 16²), keys and values 4 n 16²,
#   decoder 2 (m (4·16² + 3·16·32) + 2 m² 16 + 2 m 16² + 2 m n 16 + m 16·256).
ONE_PASS = 13_568 + 58_880  # 2 inputs, 4 targets


def model(names, family):
    return FourM(
        modalities=registry.resolve(family, names),
        inputs=names,
        outputs=names[1:],
        dim=16,
        encoder_depth=1,
        decoder_depth=1,
        num_heads=2,
        mlp_dim=32,
    )


def passes(*counts, **options):
    return [Step(target="tok_depth", scheme="maskgit", num_tokens=n, **options) for n in counts]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (passes(4), ONE_PASS),
        (passes(3, 1), ONE_PASS + 34_880 + 14_720),  # then 5 inputs, 1 target
        (passes(4, guidance=2.0, guided=("rgb",)), ONE_PASS + 58_368),  # no inputs, 4 targets
    ],
)
def test_a_chain_counts_what_is_known_and_open_in_every_pass(steps, expected):
    trunk = model(("rgb", "tok_depth"), "scenes")
    assert operations.of_chain(trunk, {"rgb": 2}, steps, {"tok_depth": 4}) == expected


def test_targets_of_one_prediction_share_the_encoder():
    trunk = model(("rgb", "tok_depth", "tok_normal"), "scenes")
    targets = {"tok_depth": 4, "tok_normal": 4}
    assert operations.of_prediction(trunk, {"rgb": 2}, targets) == ONE_PASS + 58_880


@pytest.mark.parametrize("options", [{"num_passes": 1}, {"parallel": True}])
def test_a_row_has_the_figures_of_the_suite(options, monkeypatch):
    trunk = model(("rgb@224", "tok_depth@224"), "fourm")
    case = generate.Case(name="depth", targets=("tok_depth@224",), batch=2, **options)
    params = generate.random_params(trunk)
    monkeypatch.setattr(generate, "random_trunk", lambda size, mix: (trunk, params))
    monkeypatch.setattr(generate, "all_cases", lambda on_accelerator: [case])
    monkeypatch.setattr(yardsticks, "product", lambda: {"sgemm_gflops": 100.0})
    (row,) = generate.run(["tiny_depth"])
    assert row["tokens"] == 196
    assert (row["batch"], row["dtype"], row["sgemm_gflops"]) == (2, "float32", 100.0)
    for name in ("seconds", "samples_per_s", "tokens_per_s", "model_gflops"):
        assert row[name] > 0, name
    assert {"device", "compile_s"} <= row.keys()
    assert len({"peak_gib", "peak_rss_gib"} & row.keys()) == 1
    assert ("one_by_one_seconds" in row) == case.parallel
