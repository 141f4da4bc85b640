"""The stack of blocks: remat and unrolling change no number, published widths."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fourm_jax.models import layers, transformer
from fourm_jax.ops import attention, gate
from fourm_jax.utils import hardware


def stack(**changes):
    fields = {"depth": 3, "num_heads": 2, "mlp": "swiglu", "mlp_dim": 6}
    return transformer.Stack(**fields | changes)


CHANGES = [
    {"remat": "full"},
    {"remat": "dots", "scan_unroll": 3},
    {"remat": "names"},
    {"remat": "names", "scan_unroll": 0},
    {"remat": "offload"},
]


@pytest.mark.parametrize("changes", CHANGES)
def test_rematerialisation_and_unrolling_change_no_number(changes):
    x = jax.random.normal(jax.random.key(0), (2, 4, 8))
    params = jax.jit(stack().init)(jax.random.key(1, impl="rbg"), x)

    def gradient(module):
        return jax.jit(jax.grad(lambda p: (module.apply(p, x) ** 3).sum()))(params)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3),
        gradient(stack(**changes)),
        gradient(stack()),
    )


def test_what_accelerators_compute_equals_what_a_cpu_computes(monkeypatch):
    # there the hidden width 6 is filled up to 128, norms have a backward pass of their own, and
    # queries, keys and values are products of their own
    module = stack(cross=True, use_bias=True, remat="names")
    x, context = jax.random.normal(jax.random.key(0), (2, 2, 4, 8))
    params = jax.jit(module.init)(jax.random.key(1, impl="rbg"), x, context)

    def step():
        def loss(params, x, context):
            y = module.apply(params, x, context)
            return (y**3).sum(), y

        return jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(params, x, context)

    expected = step()
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    actual = step()
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), actual, expected
    )
    monkeypatch.undo()
    assert jax.tree.map(jnp.shape, module.init(jax.random.key(1), x, context)) == jax.tree.map(
        jnp.shape, params
    )


def test_a_gpu_zeroes_behind_the_projection_what_sees_nothing(monkeypatch):
    module = layers.Attention(num_heads=1, cross=True, use_bias=True)
    x, context = jnp.ones((2, 3, 4)), jnp.ones((2, 2, 4))
    mask = attention.sees_valid(jnp.array([[False, False], [True, False]]), 3, packed=True)
    params = module.init(jax.random.key(0), x, context, mask)["params"]
    params["out"] |= {"kernel": jnp.eye(4)[None], "bias": jnp.full(4, 0.5)}
    monkeypatch.setattr(hardware, "platform", lambda: "gpu")
    monkeypatch.setattr(attention, "attend", lambda q, *_, **__: jnp.full_like(q, 7))
    attended = module.apply({"params": params}, x, context, mask)
    np.testing.assert_array_equal(attended[:, :, 0], [[0.5] * 3, [7.5] * 3])


def test_heads_cut_before_the_stack_are_those_that_it_cuts_and_can_be_joined_again():
    module = stack(cross=True, use_bias=True)
    x, context = jax.random.normal(jax.random.key(0), (2, 2, 4, 8))
    params = jax.jit(module.init)(jax.random.key(1, impl="rbg"), x, context)["params"]
    cut = layers.cut_heads(params)
    kernels = cut["blocks"]["self_attention"]["qkv"]["kernels"]
    assert [one.shape for one in kernels] == [(3, 8, 2, 4)] * 3  # layers, d, heads, channels
    expected = jax.jit(module.apply)({"params": params}, x, context)
    np.testing.assert_allclose(jax.jit(module.apply)({"params": cut}, x, context), expected)
    one_layer = jax.tree.map(lambda leaf: leaf[1], cut["blocks"])
    jax.tree.map(
        np.testing.assert_array_equal,
        layers.join_heads(one_layer),
        jax.tree.map(lambda leaf: leaf[1], params["blocks"]),
    )


@pytest.mark.parametrize("scan_unroll", [0, 1])
def test_layers_cut_before_are_those_of_the_stack(scan_unroll):
    module = stack(cross=True, use_bias=True, scan_unroll=scan_unroll)
    x, context = jax.random.normal(jax.random.key(0), (2, 2, 4, 8))
    params = jax.jit(module.init)(jax.random.key(1, impl="rbg"), x, context)["params"]
    cut = transformer.cut_layers(params)
    assert len(cut["layers"]) == 3 and cut["blocks"] is params["blocks"]
    one_kernel = cut["layers"][2]["feed_forward"]["fc1"]["kernel"]
    np.testing.assert_array_equal(one_kernel, params["blocks"]["feed_forward"]["fc1"]["kernel"][2])

    def outcomes(params):
        memories = module.apply({"params": params}, context, 5, method="remember")
        return module.apply({"params": params}, x, context), memories

    for depth in (3, 2):
        module = module.clone(depth=depth)
        expected, given = (transformer.first_layers(one, depth) for one in (params, cut))
        jax.tree.map(np.testing.assert_array_equal, *map(jax.jit(outcomes), (given, expected)))


def test_a_stack_that_is_trained_takes_no_layers():
    module, x = stack(drop_path=0.5, scan_unroll=0), jnp.ones((2, 4, 8))
    params = jax.jit(module.init)(jax.random.key(1, impl="rbg"), x)["params"]
    with pytest.raises(AssertionError, match="not for training"):
        module.apply({"params": transformer.cut_layers(params)}, x, train=True)


@pytest.mark.parametrize(
    ("backend", "num_tokens", "num_products"), [("cpu", 1, 1), ("gpu", 1, 1), ("gpu", 1024, 3)]
)
def test_accelerators_cut_the_kernel_of_the_heads_and_not_the_activations_of_many_tokens(
    backend, num_tokens, num_products, monkeypatch
):
    module = layers.HeadsIn(count=3, num_heads=1, use_bias=True, dtype=jnp.float32)
    kernel = jnp.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])  # [count, k]
    params = {"kernel": jnp.stack([kernel, -kernel])[:, :, None], "bias": jnp.ones((3, 1, 2))}
    x = jnp.tile(jnp.array([10.0, 1.0]), (1, num_tokens, 1))  # rows are 10 · kernel − kernel + 1
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    q, k, v = module.apply({"params": params}, x)
    expected = jnp.broadcast_to((9 * kernel + 1)[:, None, None, None], (3, 1, num_tokens, 1, 2))
    np.testing.assert_allclose([q, k, v], expected)
    jaxpr = str(jax.make_jaxpr(module.apply)({"params": params}, x))
    assert jaxpr.count("dot_general") == num_products


@pytest.mark.parametrize(("remat", "hidden"), [("full", 0), ("names", 2), ("dots", 2)])
def test_a_policy_decides_what_waits_for_the_backward_pass(remat, hidden):
    module = stack(mlp_dim=7, remat=remat)  # only hidden layers have 7 channels
    x = jnp.ones((2, 5, 8))
    params = jax.eval_shape(module.init, jax.random.key(0), x)
    backward = jax.eval_shape(lambda p, x: jax.vjp(module.apply, p, x)[1], params, x)
    shapes = [leaf.shape for leaf in jax.tree.leaves(backward)]
    assert shapes.count((3, 10, 7)) == hidden  # [layers, samples · tokens, channels]


def test_without_a_loop_over_blocks_what_a_policy_drops_is_computed_again():
    def flops(remat):
        module, x = stack(mlp_dim=64, remat=remat, scan_unroll=0), jnp.ones((2, 64, 8))
        params = jax.eval_shape(module.init, jax.random.key(0), x)
        step = jax.grad(lambda params, x: (module.apply(params, x) ** 2).sum(), (0, 1))
        return jax.jit(step).lower(params, x).compile().cost_analysis()["flops"]

    # A block's products once more, but the last: a quarter more of the step's. A compiler that
    # finds the same products in the forward pass would keep what they give, and save none.
    assert flops("full") > 1.2 * flops("none")


@pytest.mark.parametrize(
    ("remat", "scan_unroll", "expected"),
    [("names", 1, True), ("names", 2, True), ("names", 0, False), ("none", 1, False)],
)
def test_gates_know_whether_they_are_computed_again_in_a_loop(
    monkeypatch, remat, scan_unroll, expected
):
    found = set()

    def gated(a, b, activation, num_samples, *, cuts_stacked):
        found.add(cuts_stacked)
        return activation(a) * b

    monkeypatch.setattr(gate, "gated", gated)
    module = stack(remat=remat, scan_unroll=scan_unroll)
    jax.eval_shape(module.init, jax.random.key(0), jnp.ones((2, 4, 8)))
    assert found == {expected}


def test_stochastic_depth_ramps_up_from_zero_and_keeps_the_mean():
    class Residual(layers.nn.Module):
        def __call__(self, x, rate):
            return layers.residual(self, x, jnp.ones_like(x), rate)

    x = jnp.zeros((4000, 1, 1))
    for rate in (0.0, 0.25):
        y = Residual().apply({}, x, jnp.float32(rate), rngs={"drop_path": jax.random.key(0)})
        np.testing.assert_allclose(np.unique(y), [0, 1 / (1 - rate)] if rate else [1], rtol=1e-6)
        assert abs(float(y.mean()) - 1) < 0.05


@pytest.mark.parametrize(
    ("dim", "width"), [(384, 1024), (512, 1365), (768, 2048), (1024, 2730), (2048, 5461)]
)
def test_swiglu_widths_are_the_published_ones(dim, width):
    assert layers.hidden_dim(dim, "swiglu") == width
    assert layers.hidden_dim(dim, "gelu") == 4 * dim
    assert layers.hidden_dim(dim, "relu") == layers.hidden_dim(dim, "gelu")
    assert layers.hidden_dim(dim, "geglu") == width


@pytest.mark.parametrize(
    ("kind", "expected"),  # 10 · act(2x), and 10 · act(2x) · 3x with a gate, at x = -1 and 1
    [
        ("relu", [0, 20]),
        ("reglu", [0, 60]),
        ("silu", [-2.3841, 17.6159]),  # silu(2) = 2 / (1 + e^-2) = 1.76159
        ("swiglu", [7.1522, 52.8478]),
        ("gelu", [-0.4550, 19.5450]),  # gelu(2) = 2 · 0.97725, the tanh form has 1.95460
        ("geglu", [1.3650, 58.6350]),
    ],
)
def test_mlps_of_every_kind(kind, expected):
    kernels = {"fc1": 2.0, "fc3": 3.0, "fc2": 10.0}
    params = {name: {"kernel": jnp.full((1, 1), value)} for name, value in kernels.items()}
    y = layers.Mlp(hidden_dim=1, kind=kind).apply({"params": params}, jnp.array([[[-1.0], [1.0]]]))
    np.testing.assert_allclose(y.ravel(), expected, atol=3e-4)


def casts(jaxpr):
    """Shapes of what is cast from float32 to bfloat16, in all loops."""
    for equation in jaxpr.eqns:
        if equation.params.get("new_dtype") == jnp.bfloat16:
            (given,) = equation.invars
            if given.aval.dtype == jnp.float32:
                yield given.aval.shape
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from casts(inner)


@pytest.mark.parametrize("remat", ["none", "names", "full"])
def test_a_step_casts_the_kernels_of_all_layers_once_and_none_layer_by_layer(remat):
    module, x = stack(dtype=jnp.bfloat16, remat=remat), jnp.ones((1, 5, 8))
    params = jax.eval_shape(module.init, jax.random.key(0), x)
    step = jax.grad(lambda params: module.apply(params, x).sum().astype("float32"))
    found = list(casts(jax.make_jaxpr(step)(params).jaxpr))
    kernels = [(3, 8, 3, 2, 4), (3, 2, 4, 8), (3, 8, 6), (3, 8, 6), (3, 6, 8)]  # qkv, out, 3 of MLP
    assert sorted(shape for shape in found if len(shape) > 2 and shape[0] == 3) == sorted(kernels)
    assert not {shape[1:] for shape in kernels} & set(found)


@pytest.mark.parametrize("dim", [4, 5])  # 5 has no halves
@pytest.mark.parametrize("rows", [1, 2])
def test_a_product_of_one_row_is_that_of_many(rows, dim):
    x, kernel = np.arange(1.0, rows * dim + 1).reshape(rows, dim), np.eye(dim, 3) + 2
    product = layers.product(jnp.asarray(x, "float32"), jnp.asarray(kernel, "float32"))
    np.testing.assert_array_equal(product, x @ kernel)
