"""The embedded 3-D scenes as a source; the renderer is imported when it is opened."""

from typing import Any


def make_source(
    split: str, *, num_records: int = 2**22, image_size: int = 32, seed: int = 0
) -> Any:
    """Random access to rendered scenes, see `fourm_jax.scenes.world.SceneSource`."""
    from fourm_jax.scenes import world

    return world.SceneSource(split, num_records, image_size, seed)
