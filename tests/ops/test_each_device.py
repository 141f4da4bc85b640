"""Kernels on eight devices give what they give on one, and put no arrays together."""

import functools
import importlib.util

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from fourm_jax.ops import (
    attention,
    each_device,
    flash,
    flash_tpu,
    fused,
    fused_draw,
    fused_draw_tpu,
    fused_threshold,
    gate,
    norm,
    sampling,
    threshold,
)
from fourm_jax.parallel import collectives, hlo, topology
from fourm_jax.parallel import mesh as mesh_lib
from fourm_jax.utils import hardware

SAMPLES, TOKENS, DIM, HIDDEN, HEAD_DIM = 8, 32, 128, 256, 64
MESHES = [{"data": 8}, {"data": 2, "fsdp": 4}, {"data": 2, "fsdp": 2, "tensor": 2}]


def make_mesh(**sizes):
    num_devices = int(np.prod(list(sizes.values())))
    return mesh_lib.make_mesh(devices=jax.devices()[:num_devices], **sizes)


@pytest.fixture
def on_gpus(monkeypatch):
    """Code that chooses kernels as GPUs do, and runs them interpreted."""
    monkeypatch.setattr(hardware, "platform", lambda: "gpu")
    monkeypatch.setattr(fused, "FEWEST_PROGRAMS", 2)
    monkeypatch.setattr(fused, "BLOCK", 1024)
    kernels = [(fused, "norm_forward"), (fused, "norm_backward"), (fused, "gate_backward")]
    kernels += [
        (flash, "flash_attention"),
        (fused_draw, "draw"),
        (fused_threshold, "smallest_within"),
    ]
    for module, name in kernels:
        interpreted = functools.partial(getattr(module, name), interpret=True)
        monkeypatch.setattr(module, name, interpreted)


def run(function, sizes, arguments, specs):
    """Results of function(*arguments) under a mesh, and the program."""
    mesh = make_mesh(**sizes)
    with jax.set_mesh(mesh):
        placed = jax.device_put(arguments, tuple(NamedSharding(mesh, spec) for spec in specs))
        compiled = jax.jit(function).lower(*placed).compile()
        return jax.tree.map(np.asarray, compiled(*placed)), compiled.as_text()


def numbers(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def branch(scale, bias, enter, leave, x, weights):
    """A norm, a gate and the sum with what went in; statistics alone wait for the backward pass."""

    def forward(scale, bias, enter, leave, x):
        assert norm.uses_kernels(x)
        x, ys = norm.fork_norm(x, scale, bias, 1e-6, jnp.float32, 2)
        a, b = (y.reshape(-1, DIM) @ kernel for y, kernel in zip(ys, enter, strict=True))
        heads = a.reshape(SAMPLES, TOKENS, -1, HEAD_DIM)
        assert norm.uses_kernels(heads) and gate._uses_kernel(a, nn.silu, SAMPLES)
        (heads,) = norm.layer_norm(heads, scale[:HEAD_DIM], bias[:HEAD_DIM], 1e-6, jnp.float32)
        a = heads.reshape(a.shape)
        return x + (gate.gated(a, b, nn.silu, SAMPLES) @ leave).reshape(x.shape)

    policy = jax.checkpoint_policies.save_only_these_names(norm.SAVED)
    return (jax.checkpoint(forward, policy=policy)(scale, bias, enter, leave, x) * weights).sum()


@pytest.mark.parametrize("sizes", MESHES, ids=str)
def test_norm_and_gate_are_those_of_one_device_and_nothing_is_put_together(on_gpus, sizes):
    specs = P(), P(), P(None, None, "tensor"), P("tensor"), *[P(each_device.SAMPLES)] * 2
    arguments = (
        *(numbers(DIM), numbers(DIM)),
        *(numbers(2, DIM, HIDDEN) / 16, numbers(HIDDEN, DIM) / 16),
        *numbers(2, SAMPLES, TOKENS, DIM),
    )
    function = jax.value_and_grad(branch, argnums=(0, 1, 2, 3, 4))
    expected, _ = run(function, {"data": 1}, arguments, specs)
    actual, program = run(function, sizes, arguments, specs)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    assert sent(program) == {"all-reduce"}  # sums


def sent(program):
    """Kinds of collectives of a program."""
    return {one.kind for one in collectives.read(hlo.parse(program), 8)}


def test_a_gate_in_a_loop_has_the_same_gradients_without_a_kernel(on_gpus):
    a, b, d_y = numbers(3, SAMPLES * TOKENS, HIDDEN)

    def gradients(cuts_stacked):
        def gated(a, b):
            return gate.gated(a, b, nn.silu, SAMPLES, cuts_stacked=cuts_stacked)

        return lambda a, b, d_y: jax.vjp(gated, a, b)[1](d_y)

    with jax.set_mesh(make_mesh(data=8)):
        texts = [str(jax.make_jaxpr(gradients(cuts))(a, b, d_y)) for cuts in (False, True)]
        assert ["pallas_call" in text for text in texts] == [True, False]
        for x, expected in zip(
            gradients(True)(a, b, d_y), gradients(False)(a, b, d_y), strict=True
        ):
            np.testing.assert_allclose(x, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("backend", "platform"), [("triton", "gpu"), ("splash", "tpu"), ("mosaic", "tpu")]
)
def test_attention_of_own_samples_and_heads_is_that_of_one_device(
    on_gpus, monkeypatch, backend, platform
):
    monkeypatch.setattr(hardware, "platform", lambda: platform)
    splash = functools.partial(attention._splash, interpret=True)
    monkeypatch.setitem(attention._KERNELS, "splash", splash)
    mosaic = functools.partial(flash_tpu.attention, interpret=True)
    monkeypatch.setattr(flash_tpu, "attention", mosaic)
    tokens = 128
    qkv = numbers(3, SAMPLES, tokens, 2, 16).astype(jnp.bfloat16)
    valid = np.arange(tokens) < 16 * np.arange(SAMPLES)[:, None]

    def total(q, k, v, valid):
        mask = attention.sees_valid(valid, tokens)
        assert not attention._obstacle(backend, q, k, mask)
        return attention.attend(q, k, v, mask, backend=backend).astype(jnp.float32).sum()

    function = jax.grad(total, argnums=(0, 1, 2))
    specs = *[P(each_device.SAMPLES, None, "tensor")] * 3, P(each_device.SAMPLES)
    expected, _ = run(function, {"data": 1}, (*qkv, valid), specs)
    actual, program = run(function, MESHES[-1], (*qkv, valid), specs)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)
    assert not sent(program)


@pytest.mark.scale
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
@pytest.mark.parametrize(
    ("tokens", "kernels"),
    [
        (attention._LONG, {"splash_mha_fwd", "splash_mha_dkv"}),
        (attention._HELD, {"flash_tpu_forward", "flash_tpu_backward"}),
        (200, {"flash_tpu_forward", "flash_tpu_backward"}),
    ],
)
def test_several_tpus_take_splash_for_long_sequences_and_our_kernels_for_short_ones(
    monkeypatch, tokens, kernels
):
    jax.devices()  # XLA_FLAGS of the CPU's compiler are read here; that of TPUs knows them not
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    mesh = mesh_lib.make_mesh(data=2, tensor=2, devices=topology.find("v5e:2x2").devices)
    spec = P(each_device.SAMPLES, None, "tensor")

    def loss(q, k, v):
        out = attention.attend(q, k, v).astype(jnp.float32)
        return (out**2).sum()

    with jax.set_mesh(mesh):
        x = jax.ShapeDtypeStruct(
            (16, tokens, 4, 64), jnp.bfloat16, sharding=NamedSharding(mesh, spec)
        )
        program = jax.jit(jax.grad(loss, (0, 1, 2))).lower(x, x, x).compile().as_text()
    assert all(name in program for name in kernels) and not sent(program)


@pytest.mark.parametrize("top_k", [0, 5])  # a kernel for the whole draw, one for the threshold
def test_draws_of_own_rows_are_those_of_one_device(on_gpus, top_k):
    arguments = (
        np.random.default_rng(0).uniform(size=(SAMPLES, 3)).astype(np.float32),
        numbers(SAMPLES, 3, 40),
    )

    def draw(uniform, logits):
        assert threshold.fits_kernel(logits)
        return sampling.sample(uniform, logits, 0.5, top_k=top_k, top_p=0.6)

    specs = [P(each_device.SAMPLES)] * 2
    expected, _ = run(draw, {"data": 1}, arguments, specs)
    actual, program = run(draw, MESHES[-1], arguments, specs)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)
    assert sent(program) == ({"all-reduce"} if top_k else set())  # does any row have ties?


def test_a_tpu_draws_by_its_kernel_where_the_rows_are(monkeypatch):
    monkeypatch.setattr(hardware, "platform", lambda: "tpu")
    calls, draw_rows = [], fused_draw_tpu.draw

    def watched(*arguments, **settings):
        calls.append(arguments[1].shape)
        return draw_rows(*arguments, **settings, interpret=True)

    monkeypatch.setattr(fused_draw_tpu, "draw", watched)
    uniform = np.random.default_rng(0).uniform(size=(SAMPLES, 3)).astype(np.float32)
    arguments = uniform, numbers(SAMPLES, 3, 40)

    def draw(uniform, logits):
        return sampling.sample(uniform, logits, 0.5, top_p=0.6)

    specs = [P(each_device.SAMPLES)] * 2
    expected, _ = run(draw, {"data": 1}, arguments, specs)
    actual, program = run(draw, MESHES[-1], arguments, specs)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)
    assert calls == [(24, 40), (6, 40)] and not sent(program)


@pytest.mark.scale
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
@pytest.mark.parametrize(("num_rows", "vocab_size"), [(3, 64), (6272, 8192), (4, 30000)])
def test_the_compiler_of_tpus_takes_the_kernel_of_the_draw(monkeypatch, num_rows, vocab_size):
    jax.devices()
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    mesh = mesh_lib.make_mesh(data=1, devices=topology.find("v5e:2x2").devices[:1])
    with jax.set_mesh(mesh):
        shapes = [(num_rows, 1), (num_rows, 1, vocab_size)]
        arguments = [
            jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, P()))
            for shape in shapes
        ]
        draw = jax.jit(functools.partial(sampling.sample, temperature=1.0, top_p=0.9))
        program = draw.lower(*arguments).compile().as_text()
    assert "tpu_custom_call" in program and " sort(" not in program


@pytest.mark.parametrize("sizes", MESHES[:2], ids=str)
def test_draws_on_processors_bring_no_logits_together(monkeypatch, sizes):
    monkeypatch.setattr(sampling, "IN_CACHE", 2 * DIM)  # fewer rows than there are
    arguments = np.random.default_rng(0).random((SAMPLES, 4)), numbers(SAMPLES, 4, DIM)

    def draw(uniform, logits):
        return sampling.sample(uniform, logits, 0.5, top_p=0.6)

    specs = [P(each_device.SAMPLES)] * 2
    expected, _ = run(draw, {"data": 1}, arguments, specs)
    actual, program = run(draw, sizes, arguments, specs)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)
    assert sent(program) <= {"all-reduce"}  # does any row have ties?


def test_samples_that_do_not_divide_over_the_devices_are_left_to_xla(on_gpus):
    x = jnp.zeros((SAMPLES, TOKENS, DIM))
    with jax.set_mesh(make_mesh(data=2, fsdp=2, tensor=2)):
        assert (each_device.num_parts(8), each_device.num_parts(6)) == (4, 0)
        assert each_device.num_parts(6, each_device.CHANNELS) == 2
        assert norm.uses_kernels(x) and not norm.uses_kernels(x[:6])
        inside = jax.shard_map(
            lambda x: x + each_device.num_parts(7), in_specs=P(), out_specs=P(), check_vma=False
        )
        assert inside(jnp.zeros(())) == 1  # what a device has is its own
    with jax.set_mesh(make_mesh(data=1)):
        assert each_device.num_parts(7) == 1
    assert not norm.uses_kernels(x)  # eight devices and no mesh: who knows where x lies


def test_heads_that_do_not_divide_are_named(monkeypatch, capsys):
    monkeypatch.setattr(hardware, "platform", lambda: "tpu")
    x = jnp.ones((SAMPLES, 128, 3, 16))
    attention._say_once.cache_clear()
    with jax.set_mesh(make_mesh(data=4, tensor=2)):
        np.testing.assert_array_equal(attention.attend(x, x, x, backend="splash"), x)
    assert "samples and heads that divide over the mesh" in capsys.readouterr().out
