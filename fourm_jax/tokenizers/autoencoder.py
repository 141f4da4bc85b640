"""The shared core of discrete autoencoders: backbone, quantizer and backbone around raw signals."""

from collections.abc import Mapping

import flax
import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from fourm_jax.models.backbones import unet_parts
from fourm_jax.ops import reconstruction
from fourm_jax.tokenizers.signal import Signal


@flax.struct.dataclass
class TokenizerOutput:
    """What a training step of a tokenizer returns.

    Attributes:
      loss: scalar to minimize.
      metrics: scalars by name: parts of the loss, codebook statistics, errors in natural units.
      reconstruction: raw signal, as `decode` returns it.
      ids: as `encode` returns them.
    """

    loss: Float[Array, ""]
    metrics: dict[str, Float[Array, ""]]
    reconstruction: Num[Array, "b ..."]
    ids: Int[Array, "b ..."]


class Autoencoder(nn.Module):
    """Raw signal -> encoder -> quantizer -> decoder -> raw signal (docs/published.md#tokenizers).

    Ids are [b, y, x] for images ([b, y, x, codes] with several codes per position) and [b, codes]
    for vectors.

    Attributes:
      signal: type, range and normalization of the raw signal.
      encoder: network space [b, h, w, c] -> [b, y, x, d].
      decoder: [b, y, x, d] -> network space.
      quantizer: over the projected latents.
      decoder_dim: width that codes are projected to.
      image_size, patch_size: nominal; other sizes work where the backbones allow them.
      loss: name in `ops.reconstruction.LOSSES`.
      class_dim: width of the class embedding ("classes" signals).
    """

    signal: Signal
    encoder: nn.Module
    decoder: nn.Module
    quantizer: nn.Module
    decoder_dim: int
    image_size: tuple[int, int] = (1, 1)
    patch_size: int = 1
    loss: str = "mse"
    class_dim: int = 0

    def setup(self):
        if self.loss not in reconstruction.LOSSES:
            raise ValueError(f"loss {self.loss!r}, allowed: {sorted(reconstruction.LOSSES)}")
        if self.signal.kind == "classes":
            self.class_embedding = nn.Embed(self.signal.num_classes, self.class_dim)
        self.to_latent = nn.Dense(self.quantizer.latent_dim)
        self.from_latent = nn.Dense(self.decoder_dim)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of token positions at the nominal size."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size

    def __call__(self, raw: Num[Array, "b ..."], train: bool = False) -> TokenizerOutput:
        """Reconstruct; `train` updates collection "codebook" (rng stream "quantizer").

        Where the decoder draws at another resolution (its own `patch_size`), that is compared with
        the image resized to it (nearest).
        """
        target = self.signal.normalize(raw)
        quantized = self.quantizer(self.latents(self.embed(target))[1], train)
        prediction = self.decode_latents(quantized.values)
        if prediction.shape[1:3] != target.shape[1:3]:
            rows, columns = prediction.shape[1:3]
            raw = unet_parts.resize_nearest(raw, (rows, columns))
            target = self.signal.normalize(raw)
        error = reconstruction.LOSSES[self.loss](prediction, target)
        restored = self.signal.denormalize(prediction)
        metrics = {
            "reconstruction_loss": error,
            "commitment_loss": quantized.loss,
            **self.quantizer.usage(quantized.ids),
            **natural_errors(self.signal, restored, raw),
        }
        ids = self._squeeze(quantized.ids)
        return TokenizerOutput(error + quantized.loss, metrics, restored, ids)

    def encode(self, raw: Num[Array, "b ..."]) -> Int[Array, "b ..."]:
        """Return the ids of a raw batch."""
        latents = self.latents(self.embed(self.signal.normalize(raw)))[1]
        return self._squeeze(self.quantizer(latents).ids)

    def decode(self, ids: Int[Array, "b ..."]) -> Num[Array, "b ..."]:
        """Return the raw batch that ids stand for."""
        values = self.quantizer.lookup(self._expand(ids))
        return self.signal.denormalize(self.decode_latents(values))

    def codes(self, ids: Int[Array, "b ..."]) -> Float[Array, "b ... l"]:
        """Return the code vectors of ids: one per position of images, one for a vector."""
        values = self.quantizer.lookup(self._expand(ids))
        return values if self.signal.is_image else values[:, 0, 0]

    def decode_probabilities(self, probabilities: Float[Array, "b ... k"]) -> Num[Array, "b ..."]:
        """Decode the average code under `probabilities` [*ids.shape, k] instead of one code."""
        values = self.quantizer.mix(self._expand(probabilities))
        return self.signal.denormalize(self.decode_latents(values))

    def embed(self, value: Num[Array, "b h w ..."]) -> Float[Array, "b h w c"]:
        """Return what the encoder reads: network space, class ids embedded."""
        return self.class_embedding(value) if self.signal.kind == "classes" else value

    def latents(
        self, value: Float[Array, "b h w c"]
    ) -> tuple[Float[Array, "b y x d"], Float[Array, "b y x l"]]:
        """Return encoder features and their projection, before quantization."""
        features = self.encoder(value)
        return features, self.to_latent(features)

    def decode_latents(self, values: Float[Array, "b y x l"]) -> Float[Array, "b h w c"]:
        """Return the prediction in network space (values or logits) from codes."""
        return self.decoder(self.from_latent(values))

    def stages(self, raw: Num[Array, "b ..."]) -> Mapping[str, Array]:
        """Every intermediate value of a reconstruction, channels last, for comparisons."""
        prepared = self.embed(self.signal.normalize(raw))
        features, latents = self.latents(prepared)
        quantized = self.quantizer(latents)
        return {
            "prepared": prepared,
            "encoder_out": features,
            "quant_proj_out": latents,
            "quant": quantized.values,
            "tokens": quantized.ids,
            "tokens_to_embedding": self.quantizer.lookup(quantized.ids),
            "decoded": self.decode_latents(quantized.values),
        }

    def _squeeze(self, ids: Int[Array, "b y x h"]) -> Int[Array, "b ..."]:
        if not self.signal.is_image:
            return ids[:, 0, 0]
        return ids[..., 0] if self.quantizer.num_heads == 1 else ids

    def _expand(self, values: Num[Array, "b ..."]) -> Num[Array, "b y x h ..."]:
        if not self.signal.is_image:
            return values[:, None, None]
        return jnp.expand_dims(values, 3) if self.quantizer.num_heads == 1 else values


def natural_errors(
    signal: Signal, restored: Num[Array, "b ..."], raw: Num[Array, "b ..."]
) -> dict[str, Float[Array, ""]]:
    """Reconstruction errors in the units of the raw signal, by metric name."""
    if signal.kind != "continuous":
        return {"accuracy": jnp.mean(restored == raw)}
    restored, raw = restored.astype(jnp.float32), raw.astype(jnp.float32)
    if signal.unit:
        return {"mean_angular_error_deg": reconstruction.mean_angular_error_deg(restored, raw)}
    if signal.dtype == "uint8":
        return {"psnr": reconstruction.psnr(restored, raw, signal.high - signal.low)}
    errors = {"mae": reconstruction.l1(restored, raw)}
    if not signal.is_image:
        errors["cosine"] = jnp.mean(reconstruction.cosine_similarity(restored, raw))
    return errors
