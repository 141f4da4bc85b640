"""Labeler: dense and global features in the place of ImageBind's.

The library transformers has no ImageBind, so no published checkpoint of it loads here. This takes
any vision transformer that its AutoModel loads, for example the vision tower of ImageBind after
conversion to that layout.
"""

from fourm_jax.labelers import towers
from fourm_jax.labelers.base import Labeler


def make_labeler(*, model: str) -> Labeler:
    """Make `imagebind` float32 [rows, columns, c] and `imagebind_global` float32 [c]: normalized
    patch tokens and class token."""
    fields = "imagebind", "imagebind_global"
    return towers.make("imagebind", "AutoModel", model, towers.normed_tokens, fields)
