"""DiVAE beyond the contract: sampling, guidance, ranges, dropped conditions, frozen encoders."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fourm_jax.ops.diffusion import process
from fourm_jax.tokenizers import base, diffusion_autoencoder, divae
from fourm_jax.tokenizers.signal import Signal
from tests import drawn

ARGUMENTS = divae.tiny()["depth_uvit"]


def make(**fields):
    """Module, random variables, a raw batch and some ids."""
    module = base.build("divae", {**ARGUMENTS, "guidance": 1.0, **fields})
    raw = module.signal.example(jax.random.key(1), module.image_size, 3)
    variables = drawn.variables(base.abstract_variables(module), 0.2)
    ids = jnp.array([[[0, 1], [2, 3]], [[4, 5], [6, 7]], [[0, 1], [2, 3]]])
    return module, variables, raw, ids


@pytest.fixture(scope="module")
def tiny():
    """The UViT case, with `decode` compiled."""
    module, variables, raw, ids = make()
    decode = jax.jit(lambda ids, key=None: module.apply(variables, ids, key, method="decode"))
    return module, variables, raw, ids, decode


def test_drawing_is_repeatable_follows_its_key_and_ignores_the_rest_of_the_batch(tiny):
    *_, ids, decode = tiny
    first = decode(ids, jax.random.key(0))
    np.testing.assert_array_equal(first, decode(ids, jax.random.key(0)))
    assert jnp.abs(first - decode(ids, jax.random.key(5))).max() > 1e-3
    assert jnp.abs(first[0] - first[2]).max() > 1e-3  # same ids, other noise
    np.testing.assert_allclose(first[0], decode(ids.at[1:].add(3), jax.random.key(0))[0], rtol=1e-4)


def test_guidance_extrapolates_from_the_answer_without_codes(tiny):
    module, variables, *_ = tiny
    values = jax.random.normal(jax.random.key(0), (1, 2, 2, 8))
    noise = jax.random.normal(jax.random.key(3), (1, 8, 8, 1))

    @jax.jit
    def answers():
        def denoise(used):
            mask = jnp.full((1, 2, 2), used)
            time = jnp.array([999])
            return module.apply(variables, noise, time, values, mask, method="denoise")

        plan = module.sampling_plan(1)
        run = (variables, values, noise, plan, None, 3.0)
        return module.apply(*run, method="trajectory")[0][0], denoise(True), denoise(False)

    guided, conditional, unconditional = answers()
    assert jnp.abs(conditional - unconditional).max() > 1e-2
    expected = 3 * conditional - 2 * unconditional
    np.testing.assert_allclose(guided, expected, atol=1e-3)


def test_the_published_pipeline_ignores_guidance():
    module, variables, _, ids = make(as_published=True)
    noise = jax.random.normal(jax.random.key(3), (3, 8, 8, 1))
    values = module.apply(variables, ids[..., None], method=lambda m, i: m.quantizer.lookup(i))

    @jax.jit
    def sample(noise):
        plan = module.sampling_plan()
        return [
            module.apply(variables, values, noise, plan, None, scale, method="sample")
            for scale in (1.0, 3.0)
        ]

    np.testing.assert_array_equal(*sample(noise))


def test_other_grids_draw_other_sizes(tiny):
    decode = tiny[-1]
    assert decode(jnp.zeros((1, 4, 3), jnp.int32)).shape == (1, 16, 12)


def test_the_range_in_network_space_is_that_of_the_signal():
    depth = Signal(axes="hw", low=0.5, high=20.0, log=True, mean=1.2, std=2.0)
    low, high = diffusion_autoencoder.network_range(depth)
    np.testing.assert_allclose(low, (np.log(0.5) - 1.2) / 2, rtol=1e-6)
    np.testing.assert_allclose(high, (np.log(20) - 1.2) / 2, rtol=1e-6)
    colour = Signal(num_channels=2, low=0, high=10, mean=(0.0, 5.0), std=(10.0, 5.0))
    low, high = diffusion_autoencoder.network_range(colour)
    assert (low.tolist(), high.tolist()) == ([0, -1], [1, 1])
    assert diffusion_autoencoder.network_range(Signal()) is None


@pytest.mark.parametrize("sampler", ["ddpm", "pndm"])
def test_every_sampler_stays_in_the_range_of_the_signal(sampler):
    module, variables, _, ids = make(sampler=sampler, num_decode_steps=4)
    decoded = np.asarray(jax.jit(lambda i: module.apply(variables, i, method="decode"))(ids))
    module.signal.check(decoded, "decoded")
    assert module.signal.low <= decoded.min() <= decoded.max() <= module.signal.high


def test_the_trajectory_ends_at_the_sample(tiny):
    module, variables, *_ = tiny
    values = jax.random.normal(jax.random.key(0), (1, 2, 2, 8))
    noise = jax.random.normal(jax.random.key(3), (1, 8, 8, 1))

    @jax.jit
    def both():
        run = (variables, values, noise, module.sampling_plan(4))
        return module.apply(*run, method="sample"), module.apply(*run, method="trajectory")

    image, (answers, images) = both()
    assert answers.shape == images.shape == (4, 1, 8, 8, 1)
    np.testing.assert_allclose(images[-1], image, atol=1e-5)


def test_evaluation_needs_no_randomness_and_repeats_itself(tiny):
    module, variables, raw, *_ = tiny
    evaluate = jax.jit(lambda raw: module.apply(variables, raw))
    assert evaluate(raw).loss == evaluate(raw).loss
    assert evaluate(raw).metrics["commitment_loss"] == 0


class Constant(nn.Module):
    """A decoder that answers 0.25 everywhere."""

    num_channels: int
    multiple: int = 8

    @nn.compact
    def __call__(self, noised, times, condition, condition_mask=None, train=False):
        return jnp.full_like(noised, 0.25)


@pytest.mark.parametrize("space", diffusion_autoencoder.LOSS_SPACES)
def test_a_velocity_is_judged_as_it_is_or_by_the_noise_it_stands_for(space):
    """v = √ᾱ ε - √(1-ᾱ) x: an answer v' stands for the noise √(1-ᾱ) x_t + √ᾱ v'."""
    module = make(prediction="v", loss_space=space)[0].clone(decoder=Constant(1))
    raw = module.signal.example(jax.random.key(1), module.image_size, 3)
    variables = drawn.variables(base.abstract_variables(module))
    times = np.array([166, 500, 833])  # spread evenly in evaluation
    alpha = module.alphas[times][:, None, None, None]
    clean = np.asarray(module.signal.normalize(raw))
    noise = np.asarray(process.sample_noise(jax.random.key(0), clean.shape))
    noised = np.sqrt(alpha) * clean + np.sqrt(1 - alpha) * noise
    if space == "prediction":
        error = 0.25 - (np.sqrt(alpha) * noise - np.sqrt(1 - alpha) * clean)
    else:
        error = np.sqrt(1 - alpha) * noised + np.sqrt(alpha) * 0.25 - noise
    found = jax.jit(module.apply)(variables, raw).metrics["reconstruction_loss"]
    np.testing.assert_allclose(found, np.mean(error**2), rtol=1e-5)


def test_noise_is_not_learned_where_drawing_starts_without_any_signal():
    module, variables, raw, _ = make(prediction="epsilon")

    def train(module):
        keys = {"quantizer": jax.random.key(0)}
        return jax.eval_shape(
            lambda: module.apply(variables, raw, True, mutable=["codebook"], rngs=keys)
        )

    with pytest.raises(ValueError, match="'epsilon' with zero_terminal_snr: drawing starts at"):
        train(module)
    assert train(module.clone(zero_terminal_snr=False))
    assert train(module.clone(as_published=True))


def test_a_frozen_encoder_learns_nothing():
    module, variables, raw, _ = make(freeze_encoder=True)

    @jax.jit
    def step(params):
        def loss(params):
            output, updated = module.apply(
                {**variables, "params": params},
                raw,
                True,
                mutable=["codebook"],
                rngs={"quantizer": jax.random.key(0)},
            )
            return output.loss, updated["codebook"]

        return jax.grad(loss, has_aux=True)(params)

    gradients, codebook = step(variables["params"])
    for part in ("encoder", "to_latent"):
        assert not any(leaf.any() for leaf in jax.tree.leaves(gradients[part]))
    assert any(leaf.any() for leaf in jax.tree.leaves(gradients["decoder"]))
    jax.tree.map(np.testing.assert_array_equal, codebook, variables["codebook"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"decoder_type": "vit"}, "decoder_type 'vit', allowed"),
        ({"image_size": 10}, "not divisible by patch_size 4"),
        ({"image_size": 12, "decoder": {"patch_size": 8}}, "not divisible by the decoder's"),
        ({"signal": {"kind": "classes", "axes": "hw", "num_classes": 3}}, "continuous images"),
        ({"loss": "cosine"}, "loss 'cosine', allowed"),
        ({"loss_space": "v"}, "loss_space 'v', allowed"),
        ({"loss_space": "epsilon", "prediction": "sample"}, "'epsilon' with prediction 'sample'"),
        ({"schedule": "cosine"}, "schedule 'cosine', allowed"),
        ({"sampler": "dmp"}, "sampler 'dmp', allowed"),
        ({"num_decode_steps": 0}, r"num_decode_steps 0, allowed: 1\.\.1000"),
        ({"condition_dropout": 1.5}, r"condition_dropout 1\.5, allowed: 0\.\.1"),
        (
            {"condition_dropout_tokens": (3, 2)},
            r"condition_dropout_tokens \(3, 2\), allowed: .* of 4",
        ),
        ({"num_codes": 0}, "num_codes 0, allowed: whole numbers above 0"),
        ({"quantizer": {"dead_code_policy": "none"}}, "dead_code_policy 'none', allowed"),
        ({"prediction": "x0"}, "x0"),
    ],
)
def test_impossible_arguments_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        base.abstract_variables(base.build("divae", {**ARGUMENTS, **fields}))
