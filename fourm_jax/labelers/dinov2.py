"""Labeler: dense and global DINOv2 features."""

from fourm_jax.labelers import towers
from fourm_jax.labelers.base import Labeler


def make_labeler(*, model: str) -> Labeler:
    """Make `dinov2` float32 [rows, columns, c] and `dinov2_global` float32 [c]: normalized patch
    tokens and class token (docs/published.md#tokenizer-recipes); c is 768 for DINOv2-B/14."""
    fields = "dinov2", "dinov2_global"
    return towers.make("dinov2", "AutoModel", model, towers.normed_tokens, fields)
