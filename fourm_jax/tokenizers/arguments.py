"""Plain data of configs and cards -> fields of tokenizer modules: what every `build` shares."""

from collections.abc import Mapping, Sequence
from typing import Any

from fourm_jax.models import quantizers
from fourm_jax.tokenizers.signal import Signal


def hashable(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a Flax module as JSON and configs hold them: lists become tuples."""
    return {key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()}


def shared_fields(
    *,
    signal: Signal | Mapping[str, Any],
    image_size: int | Sequence[int],
    num_codes: int,
    latent_dim: int,
    quantizer: Mapping[str, Any] | None,
    quantizer_type: str = "ema",
    patch_size: int = 1,
) -> dict[str, Any]:
    """Return the fields of every autoencoder: signal, image_size, patch_size and quantizer.

    Args:
      signal: its fields.
      image_size: pixels, (rows, columns) or one number for both.
      num_codes, latent_dim: of the codebook.
      quantizer: further fields of the quantizer, such as `num_heads`, codes per position.
      quantizer_type: key of `quantizers.TYPES`.
      patch_size: pixels per position of the grid, along both axes.

    Raises:
      ValueError: a size that is no number above 0, an image size that patch_size does not divide,
        or an unknown quantizer.
    """
    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    for name, values in (
        ("image_size", size),
        ("patch_size", (patch_size,)),
        ("num_codes", (num_codes,)),
        ("latent_dim", (latent_dim,)),
    ):
        if not all(isinstance(value, int) and value > 0 for value in values):
            found = values[0] if len(values) == 1 else values
            raise ValueError(f"{name} {found!r}, allowed: whole numbers above 0")
    if len(size) != 2:
        raise ValueError(f"image_size {size}, allowed: a number, or rows and columns")
    if size[0] % patch_size or size[1] % patch_size:
        raise ValueError(f"image_size {size} is not divisible by patch_size {patch_size}")
    return {
        "signal": signal if isinstance(signal, Signal) else Signal(**signal),
        "image_size": size,
        "patch_size": patch_size,
        "quantizer": quantizers.make(
            quantizer_type, num_codes=num_codes, latent_dim=latent_dim, **(quantizer or {})
        ),
    }


def grid(fields: Mapping[str, Any]) -> tuple[int, int]:
    """Return rows and columns of positions of what `shared_fields` returned."""
    rows, columns = fields["image_size"]
    return rows // fields["patch_size"], columns // fields["patch_size"]
