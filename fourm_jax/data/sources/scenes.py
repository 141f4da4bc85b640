"""The embedded 3-D scenes as a source; the renderer is imported when it is opened."""

from typing import Any


def make_source(
    split: str,
    *,
    num_records: int = 2**22,
    image_size: int = 32,
    seed: int = 0,
    label: str = "",
    with_detail: bool = False,
) -> Any:
    """Random access to rendered scenes, see `fourm_jax.scenes.world.SceneSource`.

    Args:
      label: adds the field "label", a name of `fourm_jax.scenes.labels.LABELS`.
      with_detail: adds the field "detail", see `fourm_jax.scenes.detail`.
    """
    from fourm_jax.scenes import detail, labels, world

    source = world.SceneSource(split, num_records, image_size, seed)
    if with_detail:
        large = world.SceneSource(split, num_records, detail.FACTOR * image_size, seed)
        return detail.DetailedSource(source, large)
    return labels.LabelledSource(source, label) if label else source
