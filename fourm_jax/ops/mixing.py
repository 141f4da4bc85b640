"""Mixing pictures and their labels: mixup (arXiv:1710.09412) and cutmix (arXiv:1905.04899)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key


def mix(
    key: Key[Array, ""],
    pictures: dict[str, Float[Array, "b h w c"]],
    targets: Float[Array, "b k"],
    *,
    mixup: float,
    cutmix: float,
) -> tuple[dict[str, Float[Array, "b h w c"]], Float[Array, "b k"]]:
    """Mix every sample with its mirror in the batch, aligned over all pictures of a sample.

    Args:
      mixup, cutmix: concentration of the Beta draw of the share, one draw per batch; with both,
        one of them by chance.
    """
    which_key, up_key, cut_key, box_key = jax.random.split(key, 4)
    cuts = jnp.bool_(cutmix > 0)
    if mixup and cutmix:
        cuts = jax.random.bernoulli(which_key)
    share_up = jax.random.beta(up_key, mixup or 1.0, mixup or 1.0)
    share_cut = jax.random.beta(cut_key, cutmix or 1.0, cutmix or 1.0)
    centre = jax.random.uniform(box_key, (2,))

    def mixed(picture: Float[Array, "b h w c"]) -> tuple[Array, Array]:
        other = picture[::-1]
        inside = _box(centre, share_cut, picture.shape[1], picture.shape[2])
        pasted = jnp.where(inside[None, :, :, None], other, picture)
        blended = share_up * picture + (1 - share_up) * other
        kept = jnp.where(cuts, 1 - inside.mean(), share_up)
        return jnp.where(cuts, pasted, blended), kept

    results = {name: mixed(picture) for name, picture in pictures.items()}
    kept = next(iter(results.values()))[1]
    new_targets = kept * targets + (1 - kept) * targets[::-1]
    return {name: picture for name, (picture, _) in results.items()}, new_targets


def _box(centre: Float[Array, "2"], share: Float[Array, ""], height: int, width: int) -> Array:
    """Bool [h, w]: a box of `1 - share` of the area around a point, cut at the border."""
    inside = []
    for axis, length in enumerate((height, width)):
        half = jnp.sqrt(1 - share) * length / 2
        middle = centre[axis] * length
        place = jnp.arange(length)
        inside.append((place >= jnp.floor(middle - half)) & (place < jnp.floor(middle + half)))
    return inside[0][:, None] & inside[1][None, :]
