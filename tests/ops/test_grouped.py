"""Grouped heads: equal to the dense formula in values and gradients, on one device and on eight."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from fourm_jax.ops import grouped
from fourm_jax.parallel import mesh as meshes
from fourm_jax.parallel import sharding

SIZES = (5, 9, 5, 70)
OFFSETS = (0, 5, 14, 19)


def problem(num_tokens=61, dim=8, seed=0):
    rng = np.random.default_rng(seed)
    group = rng.choice(len(SIZES), num_tokens, p=[0.1, 0.0, 0.6, 0.3])
    return (
        rng.normal(size=(num_tokens, dim)).astype(np.float32),
        rng.normal(size=(sum(SIZES), dim)).astype(np.float32),
        group,
        rng.integers(0, np.array(SIZES)[group]),
        rng.random(num_tokens) < 0.8,
    )


def dense(features, table, group, ids, valid, sizes=SIZES):
    """The same with all logits of all heads, foreign ones masked."""
    row = jnp.arange(sum(sizes))
    start, size = jnp.array(np.cumsum((0, *sizes)))[group], jnp.array(sizes)[group]
    own = (row >= start[:, None]) & (row < (start + size)[:, None])
    logits = jnp.where(own, features @ table.T, -jnp.inf)
    loss = -jax.nn.log_softmax(logits)[jnp.arange(len(ids)), start + ids]
    return jnp.where(valid, loss, 0), (logits.argmax(-1) == start + ids) & valid


def total(weights, features, table, *rest, **options):
    out = grouped.grouped_cross_entropy(
        features, table, *rest, weights, offsets=OFFSETS, sizes=SIZES, **options
    )
    return out.total, (out.by_token, out.correct)


def dense_total(weights, *arguments):
    loss, correct = dense(*arguments)
    return (loss * weights).sum(), (loss, correct)


@pytest.mark.parametrize("tiles", [(4,), (64,), (2, 8, 16)])
@jax.default_matmul_precision("highest")  # an accelerator rounds float32 products otherwise
def test_values_and_gradients_equal_the_dense_formula(tiles):
    arguments = problem()
    weights = np.random.default_rng(1).normal(size=61).astype(np.float32)
    function = functools.partial(total, weights, tiles=tiles)
    step, dense_step = (
        jax.jit(jax.value_and_grad(f, (0, 1), has_aux=True))
        for f in (function, functools.partial(dense_total, weights))
    )
    (value, actual), gradient = step(*arguments)
    (expected_value, expected), expected_gradient = dense_step(*arguments)
    np.testing.assert_allclose(value, expected_value, rtol=1e-5)
    np.testing.assert_allclose(actual[0], expected[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(actual[1], expected[1])
    for a, b in zip(gradient, expected_gradient, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert not np.asarray(gradient[1][OFFSETS[1] : OFFSETS[2]]).any()  # no token met head 1
    without_gradient, _ = jax.jit(function)(*arguments)
    np.testing.assert_allclose(without_gradient, value, rtol=1e-6)


@pytest.mark.parametrize("heads", [(0, 1, 2), (0,), (2,)], ids=["all", "smallest", "largest"])
@jax.default_matmul_precision("highest")
def test_vocabularies_from_64_to_30000_equal_the_dense_formula_wherever_the_tokens_are(heads):
    sizes, rng = (64, 8_192, 30_000), np.random.default_rng(2)
    features = rng.normal(size=(24, 4)).astype(np.float32)
    table = rng.normal(size=(sum(sizes), 4)).astype(np.float32)
    group = np.resize(heads, 24)
    ids = np.where(np.arange(24) % 5 == 0, np.array(sizes)[group] - 1, 17)  # the last id too
    valid = np.arange(24) != 7
    weights = rng.random(24).astype(np.float32)

    def found(features, table):
        out = grouped.grouped_cross_entropy(
            features, table, group, ids, valid, weights, offsets=(0, 64, 8_256), sizes=sizes
        )
        return out.total, out.correct

    def expected(features, table):
        loss, correct = dense(features, table, group, ids, valid, sizes)
        return (loss * weights).sum(), correct

    results = [
        jax.jit(jax.value_and_grad(f, (0, 1), has_aux=True))(features, table)
        for f in (found, expected)
    ]
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@jax.default_matmul_precision("highest")
def test_the_z_loss_adds_the_squared_log_sum_of_the_own_head():
    features, table, group, ids, valid = problem()
    weights = np.ones(61, np.float32)

    def expected(features, table):
        row, start = jnp.arange(sum(SIZES)), jnp.array(OFFSETS)[group]
        own = (row >= start[:, None]) & (row < (start + jnp.array(SIZES)[group])[:, None])
        log_sum = jax.nn.logsumexp(jnp.where(own, features @ table.T, -jnp.inf), axis=1)
        loss, _ = dense(features, table, group, ids, valid)
        return (loss + jnp.where(valid, 0.1 * log_sum**2, 0)).sum()

    def found(features, table):
        return total(weights, features, table, group, ids, valid, tiles=(64,), z_loss=0.1)[0]

    results = [jax.value_and_grad(f, (0, 1))(features, table) for f in (found, expected)]
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found(features, table), results[0][0], rtol=1e-6)


def loss_and_gradients(*arguments):
    function = functools.partial(total, jnp.arange(64.0) / 64)
    return jax.value_and_grad(function, (0, 1), has_aux=True)(*arguments)


@pytest.mark.parametrize(
    "sizes",
    [
        {"data": 8},
        {"data": 1, "fsdp": 8},
        {"data": 2, "fsdp": 2, "tensor": 2},
        {"data": 2, "tensor": 4},
    ],
)
def test_eight_devices_equal_one(sizes):
    arguments = problem(num_tokens=64)
    expected = jax.jit(loss_and_gradients)(*arguments)
    with jax.set_mesh(meshes.make_mesh(**sizes)):
        actual = jax.jit(loss_and_gradients)(*arguments)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), actual, expected
    )


@pytest.mark.parametrize("sizes", [{"data": 1, "fsdp": 8}, {"data": 2, "fsdp": 2, "tensor": 2}])
def test_a_table_that_is_cut_is_never_put_together(sizes):
    features, table, *rest = problem(num_tokens=64)
    with jax.set_mesh(meshes.make_mesh(**sizes)):
        mesh = jax.sharding.get_mesh()
        layout = jax.NamedSharding(mesh, sharding.fit(P("tensor", "fsdp"), table.shape, mesh))
        step = jax.jit(loss_and_gradients, in_shardings=(None, layout, *[None] * 3))
        compiled = step.lower(features, table, *rest).compile().as_text()
    sent = re.findall(r" = (.*?) (all-gather|all-reduce|reduce-scatter)\(", compiled)
    assert {kind for _, kind in sent} >= {"all-gather", "reduce-scatter"}
    rows, dim = table.shape
    for shapes, kind in sent:  # heads and their columns, but not all of them
        for shape in re.findall(r"\[([\d,]+)\]", shapes):
            assert math.prod(map(int, shape.split(","))) < rows * dim, (kind, shapes)


def test_logits_are_summed_in_float32_when_features_are_bfloat16():
    features, table, *rest = problem()
    half = features.astype(jnp.bfloat16)
    _, (loss, _) = jax.jit(functools.partial(total, jnp.ones(61)))(half, table, *rest)
    rounded = table.astype(jnp.bfloat16).astype(np.float32)
    expected, _ = dense(half.astype(np.float32), rounded, *rest)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, expected, rtol=1e-4, atol=1e-5)


def test_a_batch_without_valid_tokens_has_no_loss_and_no_gradient():
    features, table, group, ids, valid = problem()

    def loss(features, table):
        return total(jnp.ones(61), features, table, group, ids, valid & False)[0]

    value, gradients = jax.jit(jax.value_and_grad(loss, (0, 1)))(features, table)
    assert value == 0
    assert not any(np.asarray(g).any() for g in gradients)


def test_a_loss_by_token_refuses_to_be_differentiated():
    arguments = problem()
    with pytest.raises(ValueError, match="use the total, with weights"):
        jax.grad(lambda features: total(jnp.ones(61), features, *arguments[1:])[1][0].sum())(
            arguments[0]
        )
