"""Labeler: dense CLIP features."""

from fourm_jax.labelers import towers
from fourm_jax.labelers.base import Labeler


def make_labeler(*, model: str) -> Labeler:
    """Make `clip` float32 [rows, columns, c]: the final patch tokens after the last norm times the
    visual projection (docs/published.md#tokenizer-recipes); c is 512 for CLIP-B/16."""

    def read(net, hidden):
        return net.visual_projection(net.vision_model.post_layernorm(hidden[:, 1:])), None

    return towers.make("clip", "CLIPVisionModelWithProjection", model, read, ("clip",))
