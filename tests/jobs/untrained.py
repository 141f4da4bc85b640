"""Tokenizers that were never trained, in folders."""

import jax
import numpy as np

from fourm_jax.tokenizers import base


def save(folder, name, signal):
    """Save one of 32-pixel pictures of a signal as `folder`/`name`.

    Its weights are random numbers of the right shapes: nothing to compile.
    """
    arguments = {
        "signal": signal,
        "image_size": 32,
        "patch_size": 4,
        "num_codes": 256,
        "latent_dim": 4,
        "backbone": "patch_mlp",
        "encoder": {"dim": 8, "depth": 1},
        "decoder": {"dim": 8, "depth": 1},
    }
    save_any(folder, name, "vqvae", arguments)


def save_any(folder, name, family, arguments):
    """Save one of any family."""
    module = base.build(family, arguments)
    example = module.signal.example(jax.random.key(0), module.image_size, batch=1)
    variables = jax.tree.map(
        lambda leaf: np.random.default_rng(0).normal(size=leaf.shape).astype(leaf.dtype),
        jax.eval_shape(module.init, jax.random.key(1), example),
    )
    base.save(folder / name, module, variables, base.make_card(name, family, arguments))
