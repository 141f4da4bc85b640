"""VQControlNet: its encoder and codebook; images are drawn elsewhere.

Source: docs/published.md#tokenizers.

The published decoder is a ControlNet on Stable Diffusion 1.5, whose condition is the grid of codes.
Here ids and codes are made; the rest is not part of this package.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import flax.linen as nn
from jaxtyping import Array, Float, Int, Num

from fourm_jax.models.backbones import vit
from fourm_jax.tokenizers import arguments
from fourm_jax.tokenizers.signal import Signal

ELSEWHERE = ("decoder.", "vae.", "adapter.")  # prefixes of published tensors that are not read
NO_DECODER = (
    "a VQControlNet draws images with a ControlNet on Stable Diffusion 1.5, which is not part of "
    "this package; what it has are ids (encode) and the codes that condition the ControlNet (codes)"
)


class CodeEncoder(nn.Module):
    """Raw image -> encoder -> quantizer -> ids, and ids -> codes.

    Attributes: see `autoencoder.Autoencoder`.
    """

    signal: Signal
    encoder: nn.Module
    quantizer: nn.Module
    image_size: tuple[int, int]
    patch_size: int

    def setup(self):
        self.to_latent = nn.Dense(self.quantizer.latent_dim)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of token positions at the nominal size."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size

    def __call__(self, raw: Num[Array, "b h w c"], train: bool = False) -> Int[Array, "b y x"]:
        """Return ids, as `encode`.

        Raises:
          ValueError: `train`: there is nothing to reconstruct with.
        """
        if train:
            raise ValueError(NO_DECODER)
        return self.encode(raw)

    def encode(self, raw: Num[Array, "b h w c"]) -> Int[Array, "b y x"]:
        """Return the ids of a raw batch."""
        latents = self.to_latent(self.encoder(self.signal.normalize(raw)))
        return self.quantizer(latents).ids[..., 0]

    def codes(self, ids: Int[Array, "b y x"]) -> Float[Array, "b y x l"]:
        """Return the code vectors of ids, what the ControlNet is conditioned on."""
        return self.quantizer.lookup(ids[..., None])

    def decode(self, ids: Int[Array, "b y x"]) -> NoReturn:
        """Raise ValueError: images are drawn elsewhere."""
        raise ValueError(NO_DECODER)

    def decode_probabilities(self, probabilities: Float[Array, "b y x k"]) -> NoReturn:
        """Raise ValueError: images are drawn elsewhere."""
        raise ValueError(NO_DECODER)


def build(
    *,
    signal: Signal | Mapping[str, Any],
    image_size: int | Sequence[int],
    patch_size: int,
    num_codes: int,
    latent_dim: int,
    encoder: Mapping[str, Any],
    quantizer: Mapping[str, Any] | None = None,
    dtype: str = "float32",
) -> CodeEncoder:
    """Return the module; arguments as those of `vqvae.build` with the "vit" backbone."""
    fields = arguments.shared_fields(
        signal=signal,
        image_size=image_size,
        patch_size=patch_size,
        num_codes=num_codes,
        latent_dim=latent_dim,
        quantizer=quantizer,
    )
    sides: dict[str, Any] = {
        "patch_size": patch_size,
        "grid": arguments.grid(fields),
        "dtype": vit.compute_dtype(dtype),
    }
    return CodeEncoder(encoder=vit.Encoder(**sides | arguments.hashable(encoder)), **fields)


def tiny() -> dict[str, dict[str, Any]]:
    """No case for the contract test, which decodes and trains."""
    return {}
