"""How many steps a DiVAE needs to draw: suite `diffusion` of experiments.benchmark.

A small DiVAE learns 32-pixel pictures of the rendered scenes for a minute of two CPU cores. Then
pictures it has not seen are drawn from their codes with few steps and with 100, from the same
noise: PSNR against the 100 steps says what few steps cost, PSNR against the picture what they
matter beside the error of the codes.
"""

import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, UInt8

from configs.tokenizers import signals
from fourm_jax.ops.diffusion import samplers
from fourm_jax.scenes import world
from fourm_jax.tokenizers import base
from fourm_jax.tokenizers.diffusion_autoencoder import DiffusionAutoencoder
from fourm_jax.train import step as train_step
from fourm_jax.train import tokenizer_task

NUM_PICTURES, NUM_HELD_OUT, BATCH = 2048, 16, 16
NUM_STEPS, RATE = 600, 1e-3
MANY, FEW = 100, (4, 8, 16)
SAMPLERS: tuple[samplers.Name, ...] = ("ddim", "dpm")
ARGUMENTS = {
    "signal": signals.RGB,
    "image_size": 32,
    "patch_size": 4,
    "num_codes": 256,
    "latent_dim": 16,
    "encoder": {"dim": 96, "depth": 2, "num_heads": 3},
    "decoder_type": "uvit",
    "decoder": {
        "patch_size": 2,
        "channels": (32,),
        "blocks_per_level": 1,
        "num_groups": 8,
        "grid": 8,
        "dim": 96,
        "depth": 3,
        "num_heads": 3,
    },
    "quantizer": {"decay": 0.95, "dead_code_coefficient": 8.0, "normalize_latents": True},
}

Pictures = UInt8[np.ndarray, "b h w c"]


def run() -> Iterator[dict]:
    """Yield one row per sampler and number of steps."""
    pictures = np.asarray(world.render(np.arange(NUM_PICTURES + NUM_HELD_OUT), 32)["rgb"])
    start = time.perf_counter()
    variables = train(pictures[NUM_HELD_OUT:])
    trained_s = time.perf_counter() - start
    held_out = pictures[:NUM_HELD_OUT]
    module = build("ddim")
    ids = jax.jit(lambda raw: module.apply(variables, raw, method="encode"))(held_out)
    reference, _ = draw("ddim", MANY, variables, ids)
    few = [(sampler, num_steps) for num_steps in FEW for sampler in SAMPLERS]
    for sampler, num_steps in [("ddim", MANY), *few]:
        drawn, seconds = draw(sampler, num_steps, variables, ids)
        yield {
            "suite": "diffusion",
            "case": f"{sampler}_{num_steps}",
            "psnr_against_ddim_100": psnr(drawn, reference),
            "psnr_against_picture": psnr(drawn, held_out),
            "images_per_s": round(NUM_HELD_OUT / seconds, 1),
            "trained_s": round(trained_s, 1),
        }


def build(sampler: samplers.Name, num_steps: int = MANY) -> DiffusionAutoencoder:
    """The DiVAE with one sampler."""
    module = base.build("divae", ARGUMENTS)
    assert isinstance(module, DiffusionAutoencoder)
    return module.clone(sampler=sampler, num_decode_steps=num_steps)


def train(pictures: Pictures) -> dict:
    """Variables of the DiVAE after `NUM_STEPS` batches of the pictures."""
    task = tokenizer_task.TokenizerTask(module=build("ddim"), source_field="rgb")
    schedule = optax.cosine_decay_schedule(RATE, NUM_STEPS)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam(b2=0.99))
    root = jax.random.key(0)
    batch = {"rgb": pictures[:BATCH]}
    init = jax.jit(task.init)
    params, model_state = jax.eval_shape(init, root, batch)
    names = train_step.metric_names(task, params, model_state, batch, root)
    state = jax.jit(
        lambda batch: train_step.init_state(init, names, optimizer, batch, root, ema=False)
    )(batch)
    one_step = jax.jit(
        train_step.make_train_step(task, optimizer, schedule, ema_decay=0.0),
        donate_argnums=0,
    )
    rng = np.random.default_rng(0)
    for _ in range(NUM_STEPS):
        rows = rng.integers(0, len(pictures), BATCH)
        state, _ = one_step(state, {"rgb": pictures[rows]}, root)
    return task.variables(state.params, state.model_state)


def draw(
    sampler: samplers.Name, num_steps: int, variables: dict, ids: Array
) -> tuple[Pictures, float]:
    """Pictures of the ids, and seconds after compilation."""
    module = build(sampler, num_steps)
    decode = jax.jit(lambda ids: module.apply(variables, ids, method="decode"))
    jax.block_until_ready(decode(ids))
    start = time.perf_counter()
    drawn = np.asarray(decode(ids))
    return drawn, time.perf_counter() - start


def psnr(drawn: Pictures, expected: Pictures) -> float:
    """Peak signal-to-noise ratio of 8-bit pictures, mean over pictures, in dB."""
    error = jnp.square(drawn.astype(np.float32) - expected.astype(np.float32)).mean((1, 2, 3))
    return round(float(jnp.mean(10 * jnp.log10(255**2 / jnp.maximum(error, 1e-3)))), 2)
