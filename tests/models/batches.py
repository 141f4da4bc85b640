"""Small hand-made modalities and token batches for the tests of the trunk."""

import jax
import numpy as np

from fourm_jax.contracts import InputTokens, TargetTokens, TokenBatch
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.models.fourm import FourM

PATCHES = ModalitySpec(name="rgb", kind="pixels", grid=(2, 2), patch_size=2, num_channels=3)
DEPTH = ModalitySpec(name="tok_depth", kind="grid", vocab_size=7, grid=(2, 2))
SEMSEG = ModalitySpec(name="tok_semseg", kind="grid", vocab_size=7, grid=(2, 2))
GLOBAL = ModalitySpec(name="global", kind="global", vocab_size=7, max_tokens=2)
CAPTION = ModalitySpec(name="caption", kind="sequence", vocab_size=11, max_tokens=6, table="text")
DET = ModalitySpec(name="det", kind="sequence", vocab_size=11, max_tokens=6, table="text")
VECTORS = ModalitySpec(name="t5", kind="embedding", max_tokens=3, embedding_dim=5)
SPECS = (PATCHES, DEPTH, SEMSEG, GLOBAL, CAPTION, DET, VECTORS)
NAMES = tuple(spec.name for spec in SPECS)
OUTPUTS = tuple(spec.name for spec in SPECS if spec.is_token)


def model(**changes) -> FourM:
    """A trunk of two blocks on each side."""
    fields = {
        "modalities": SPECS,
        "inputs": NAMES,
        "outputs": OUTPUTS,
        "dim": 16,
        "encoder_depth": 2,
        "decoder_depth": 2,
        "num_heads": 2,
    }
    return FourM(**fields | changes)


def tokens(batch: int = 2, num_inputs: int = 12, num_targets: int = 10, seed: int = 0):
    """Random tokens: inputs of every modality, targets of all that have a vocabulary.

    Embedding ids run from 0, the zero vector, to the number of vectors; targets of a sequence come
    in order; the last slot of both sides is not valid.
    """
    rng = np.random.default_rng(seed)
    num_vectors = {"embedding": VECTORS.max_tokens}
    sizes = np.array([spec.vocab_size or num_vectors.get(spec.kind, 0) + 1 for spec in SPECS])
    lengths = np.array([spec.max_tokens for spec in SPECS])
    modality = np.arange(num_inputs) % len(SPECS) * np.ones((batch, 1), int)
    inputs = InputTokens(
        modality=modality,
        position=rng.integers(0, lengths[modality]),
        id=rng.integers(0, sizes[modality]),
        valid=np.arange(num_inputs) < np.full((batch, 1), num_inputs - 1),
    )
    modality = np.sort(1 + np.arange(num_targets) % len(OUTPUTS)) * np.ones((batch, 1), int)
    is_sequence = np.isin(modality, [4, 5])
    targets = TargetTokens(
        modality=modality,
        position=np.where(
            is_sequence, np.arange(num_targets) % 6, rng.integers(0, 2, modality.shape)
        ),
        input_id=rng.integers(0, sizes[modality]),
        id=rng.integers(0, sizes[modality]),
        valid=np.arange(num_targets) < np.full((batch, 1), num_targets - 1),
        order=np.where(is_sequence, np.arange(num_targets), 0),
    )
    return TokenBatch(
        inputs=inputs,
        targets=targets,
        pixels={"rgb": rng.integers(0, 256, (batch, 4, 4, 3)).astype(np.uint8)},
        embeddings={"t5": rng.normal(size=(batch, 3, 5)).astype(np.float32)},
    )


def parameters(model: FourM, tokens: TokenBatch, seed: int = 0):
    """Random variables, drawn on the host: compiling the real initialization is slow."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(model.init, jax.random.key(0), tokens)

    def draw(path, leaf):
        values = rng.normal(size=leaf.shape) * 0.3 + (path[-1].key == "scale")
        return values.astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)
