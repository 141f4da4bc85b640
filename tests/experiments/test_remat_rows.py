"""What the suite `remat` counts: products by hand, and which of them a policy computes again."""

import jax
import jax.numpy as jnp
import pytest

from experiments.benchmarks import remat
from fourm_jax.modalities import registry
from fourm_jax.models.fourm import FourM


def test_products_count_in_every_round_of_a_loop():
    def function(x):  # [2, 4] · [4, 5], three times
        return jax.lax.map(lambda one: one @ jnp.ones((4, 5)), x)

    traced = jax.make_jaxpr(function)(jnp.ones((3, 2, 4))).jaxpr
    assert remat.count_products(traced) == 3 * 2 * (2 * 4 * 5)


def test_names_compute_no_product_again_and_dots_the_core_of_the_attentions():
    names = ("rgb", "tok_depth")
    model = FourM(
        modalities=registry.resolve("scenes", names),
        inputs=names,
        outputs=names[1:],
        dim=64,
        encoder_depth=2,
        decoder_depth=1,
        num_heads=2,
        mlp_dim=128,
    )
    with remat.as_on_a_gpu():
        needed, with_names, with_dots = (
            remat.operations(model, policy) for policy in ("none", "names", "dots")
        )
    assert with_names == needed
    logits, weighted_sum = (2 * 256 * 256 * 64 for _ in range(2))
    assert with_dots - needed == 4 * (logits + weighted_sum)  # two, one and one across


def test_an_unknown_case_is_named():
    with pytest.raises(ValueError, match=r"'base_nams'.*base_names"):
        next(remat.run(["base_nams"]))
