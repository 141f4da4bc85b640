"""Tokenizers for the digits: random weights, learned words."""

import jax
import numpy as np

from fourm_jax.data.sources import digits
from fourm_jax.tokenizers import base, text

SIGNALS = {
    "rgb": {"axes": "hwc", "dtype": "uint8", "num_channels": 3, "low": 0, "high": 255, "std": 255},
    "edge": {"axes": "hw", "dtype": "uint8", "kind": "binary", "low": 0, "high": 255},
}


def save(directory):
    """Save them in a folder; return it."""
    for name, signal in SIGNALS.items():
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
        module = base.build("vqvae", arguments)
        example = module.signal.example(jax.random.key(0), module.image_size, batch=1)
        variables = jax.tree.map(  # random numbers of the right shapes: nothing to compile
            lambda leaf: np.random.default_rng(0).normal(size=leaf.shape).astype(leaf.dtype),
            jax.eval_shape(module.init, jax.random.key(1), example),
        )
        card = base.make_card(name, "vqvae", arguments)
        base.save(directory / name, module, variables, card)
    captions = [f"a handwritten {word}" for word in digits.WORDS]
    text.TextTokenizer.train(captions, vocab_size=4608).save(directory / "text")
    return directory
