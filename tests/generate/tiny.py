"""A random trunk small enough for every generation test, and conditions for it."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np

from fourm_jax.generate import state as states
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.models.fourm import FourM
from fourm_jax.tokenizers import base
from fourm_jax.tokenizers.trained import TrainedTokenizer
from fourm_jax.utils import hardware

SPECS = (
    ModalitySpec(name="rgb", kind="pixels", grid=(2, 3), patch_size=2, num_channels=3),
    ModalitySpec(name="depth", kind="grid", vocab_size=11, grid=(3, 3), tokenizer="depth"),
    ModalitySpec(name="edge", kind="grid", vocab_size=7, grid=(3, 3), decoding_order=1),
    ModalitySpec(name="vector", kind="global", vocab_size=5, max_tokens=4, decoding_order=2),
    ModalitySpec(
        name="caption",
        kind="sequence",
        vocab_size=230,
        max_tokens=8,
        decoding_order=3,
        tokenizer="text",
        source="caption",
    ),
    ModalitySpec(name="embedding", kind="embedding", max_tokens=5, embedding_dim=6),
)
DEPTH_SIZE = (6, 6)  # pixels, 2 x 2 per token
INPUTS = tuple(spec.name for spec in SPECS)
OUTPUTS = ("depth", "edge", "vector", "caption")


@functools.cache
def trunk(**changes):
    """(model, params) with random weights, loud enough that inputs matter."""
    model = FourM(
        modalities=SPECS,
        inputs=INPUTS,
        outputs=OUTPUTS,
        **{"dim": 16, "encoder_depth": 2, "decoder_depth": 2, "num_heads": 2, **changes},
    )
    state = states.create(conditions(2), ["depth"], specs=SPECS)
    targets = states.parallel_targets(1, jnp.zeros((2, 9), jnp.int32), jnp.ones((2, 9), bool))
    tokens = states.token_batch([state], [targets], SPECS)
    shapes = jax.eval_shape(model.init, jax.random.key(0), tokens)["params"]
    rng = np.random.default_rng(0)
    # Drawn on the host: compiling the initializers would take longer than any test.
    return model, jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(scale=0.4, size=leaf.shape), leaf.dtype), shapes
    )


@contextlib.contextmanager
def accelerator(monkeypatch, *programs):
    """Jitted programs traced anew as on an accelerator; yields the batches that they build."""
    seen, build = [], states.token_batch

    def watched(*arguments, **settings):
        seen.append(build(*arguments, **settings))
        return seen[-1]

    with monkeypatch.context() as patched:
        patched.setattr(hardware, "platform", lambda: "tpu")
        patched.setattr(states, "token_batch", watched)
        for program in programs:
            program.clear_cache()
        yield seen
    for program in programs:
        program.clear_cache()


@functools.cache
def depth_tokenizer():
    """A tokenizer of "depth" with random weights: maps of `DEPTH_SIZE` in 0..1."""
    side = {"dim": 8, "depth": 1}
    arguments = {
        "signal": {"axes": "hw", "low": 0.0, "high": 1.0, "mean": 0.5, "std": 0.3},
        "image_size": DEPTH_SIZE[0],
        "patch_size": 2,
        "num_codes": 11,
        "latent_dim": 4,
        "backbone": "patch_mlp",
        "encoder": side,
        "decoder": side,
    }
    module = base.build("vqvae", arguments)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), base.abstract_variables(module)
    )
    return TrainedTokenizer(module, variables, base.make_card("depth", "vqvae", arguments))


def conditions(num_rows, names=("rgb", "caption")):
    """Random conditions in the form of the batch contract; row i is the same for any size."""
    entries = {name: [] for name in names}
    for row in range(num_rows):
        rng = np.random.default_rng(row)
        drawn = {
            "rgb": {"pixels": rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)},
            "caption": {"ids": rng.integers(204, 230, 6), "length": np.int32(3 + row % 3)},
            "edge": {"ids": rng.integers(0, 7, 9)},
            "embedding": {
                "embeddings": rng.normal(size=(5, 6)).astype(np.float32),
                "length": np.int32(2 + row % 3),
            },
        }
        for name in names:
            entries[name].append(drawn[name])
    return {
        name: {key: np.stack([row[key] for row in rows]) for key in rows[0]}
        for name, rows in entries.items()
    }
