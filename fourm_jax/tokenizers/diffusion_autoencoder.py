"""The module behind DiVAE: encoder and codebook of a VQ-VAE, a decoder that removes noise."""

from collections.abc import Mapping
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from fourm_jax.models.quantizers import Quantized
from fourm_jax.ops import quantize, reconstruction
from fourm_jax.ops.diffusion import process, schedules
from fourm_jax.ops.diffusion import samplers as sampling
from fourm_jax.tokenizers import autoencoder
from fourm_jax.tokenizers.autoencoder import TokenizerOutput
from fourm_jax.tokenizers.signal import Signal

LOSSES = ("mse", "l1", "smooth_l1")
LOSS_SPACES = ("prediction", "epsilon")


class DiffusionAutoencoder(nn.Module):
    """Raw image -> encoder -> quantizer -> ids; ids condition a diffusion decoder in pixel space.

    Training noises the image to a random time and asks the decoder for `prediction`; the
    reconstruction it reports is the image behind that answer. `decode` samples: it is
    deterministic for a given `key`, and by default the key is fixed.

    Attributes:
      signal, encoder, quantizer, image_size, patch_size: as of `autoencoder.Autoencoder`.
      decoder: (noised, times, codes, condition_mask, train) -> prediction.
      schedule, num_times, zero_terminal_snr: see `ops.diffusion.schedules.alphas_cumprod`.
      prediction: what the decoder answers: "sample" (the clean image), "epsilon", "v".
      loss: "mse", "l1" or "smooth_l1" between answer and target.
      loss_space: "prediction" compares answers as they are; "epsilon" compares the noise that they
        stand for (the published "v with eps-loss", docs/published.md#diffusion), which weighs
        times differently. Not with prediction "sample", whose noise is unbounded where there is
        hardly any.
      condition_dropout: share of training samples that are drawn without (all of) their codes.
      condition_dropout_tokens: how many positions those lose, (fewest, most); None = all. (The
        published options of this kind bound the number of positions *kept*,
        docs/published.md#defects.)
      freeze_encoder: train the decoder only; codebook and ids stay (the published UViT recipe).
      sampler: "ddim", "ddpm", "pndm" or "dpm" (second order: the best of few steps).
      num_decode_steps, spacing: of the sampler; "trailing" starts where training ended.
      guidance: classifier-free guidance scale of `decode`; 1 is none.
      clip: range of the estimated image in network space while sampling; None = the signal's own
        range, per channel. The published pipeline clips to -1..1 whatever the modality.
      as_published: sample as the published pipeline (docs/published.md#defects): DDPM times end at
        0 and so never start at pure noise, strides are truncated, clipping leaves the noise
        estimate alone, guidance is ignored.
    """

    signal: Signal
    encoder: nn.Module
    decoder: nn.Module
    quantizer: nn.Module
    image_size: tuple[int, int]
    patch_size: int
    schedule: str = "shifted_cosine:0.5"
    num_times: int = 1000
    zero_terminal_snr: bool = True
    prediction: process.Prediction = "v"
    loss: str = "mse"
    loss_space: Literal["prediction", "epsilon"] = "prediction"
    condition_dropout: float = 0.0
    condition_dropout_tokens: tuple[int, int] | None = None
    freeze_encoder: bool = False
    sampler: sampling.Name = "ddim"
    num_decode_steps: int = 25
    spacing: schedules.Spacing = "trailing"
    guidance: float = 1.0
    clip: tuple[float, float] | None = None
    as_published: bool = False

    def setup(self):
        if self.loss not in LOSSES:
            raise ValueError(f"loss {self.loss!r}, allowed: {LOSSES}")
        if self.loss_space not in LOSS_SPACES:
            raise ValueError(f"loss_space {self.loss_space!r}, allowed: {LOSS_SPACES}")
        if self.loss_space == "epsilon" and self.prediction == "sample":
            raise ValueError(
                "loss_space 'epsilon' with prediction 'sample', allowed: 'epsilon', 'v'"
            )
        # What training does not use: an error would come once it is over.
        for name, allowed in (("sampler", sampling.NAMES), ("spacing", schedules.SPACINGS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} {getattr(self, name)!r}, allowed: {allowed}")
        if not 1 <= self.num_decode_steps <= self.num_times:
            raise ValueError(
                f"num_decode_steps {self.num_decode_steps}, allowed: 1..{self.num_times}"
            )
        if not 0 <= self.condition_dropout <= 1:
            raise ValueError(f"condition_dropout {self.condition_dropout}, allowed: 0..1")
        num_tokens = self.grid[0] * self.grid[1]
        fewest, most = self.condition_dropout_tokens or (0, num_tokens)
        if not 0 <= fewest <= most <= num_tokens:
            raise ValueError(
                f"condition_dropout_tokens {(fewest, most)}, allowed: (fewest, most) of "
                f"{num_tokens}"
            )
        self.to_latent = nn.Dense(self.quantizer.latent_dim)

    @property
    def alphas(self) -> Float[np.ndarray, "t"]:
        """Cumulative alphas of all training times."""
        return schedules.alphas_cumprod(
            self.schedule, self.num_times, zero_terminal_snr=self.zero_terminal_snr
        )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of token positions at the nominal size."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size

    def __call__(self, raw: Num[Array, "b ..."], train: bool = False) -> TokenizerOutput:
        """Denoise images noised to random times (rng stream "quantizer").

        Without `train` noise and times are fixed, the latter spread evenly, so that losses of
        evaluations compare.

        Raises:
          ValueError: a training of what could not be drawn from pure noise.
        """
        blind = self.prediction == "epsilon" and self.zero_terminal_snr
        if train and blind and not self.as_published:
            raise ValueError(
                "prediction 'epsilon' with zero_terminal_snr: drawing starts at pure noise, where "
                "the noise says nothing about the image; allowed: 'v', 'sample', or "
                "zero_terminal_snr False"
            )
        clean = self.signal.normalize(raw)
        quantized = self._quantize(clean, train)
        batch = len(clean)
        if train:
            noise_key, time_key, drop_key = jax.random.split(self.make_rng("quantizer"), 3)
            times = jax.random.randint(time_key, (batch,), 0, self.num_times)
        else:
            noise_key = jax.random.key(0)
            times = (2 * jnp.arange(batch) + 1) * self.num_times // (2 * batch)
        noise = process.sample_noise(noise_key, clean.shape)
        alpha = jnp.asarray(self.alphas)[times]
        noised = process.add_noise(clean, noise, alpha)
        mask = None
        if train and self.condition_dropout:
            rows, columns = quantized.ids.shape[1:3]
            mask = process.keep_condition(
                drop_key,
                (batch, rows, columns),
                self.condition_dropout,
                self.condition_dropout_tokens,
            )
        answer = self.denoise(noised, times, quantized.values, mask, train)
        estimate, guess = process.clean_and_noise(noised, answer, alpha, self.prediction)
        target = process.target(clean, noise, alpha, self.prediction)
        pair = (answer, target) if self.loss_space == "prediction" else (guess, noise)
        error = reconstruction.LOSSES[self.loss](*pair)
        restored = self.signal.denormalize(estimate)
        metrics = {
            "reconstruction_loss": error,
            "commitment_loss": quantized.loss,
            **quantize.usage_metrics(quantized.ids, self.quantizer.num_codes),
            **autoencoder.natural_errors(self.signal, restored, raw),
        }
        ids = self._squeeze(quantized.ids)
        return TokenizerOutput(error + quantized.loss, metrics, restored, ids)

    def encode(self, raw: Num[Array, "b ..."]) -> Int[Array, "b y x ..."]:
        """Return the ids of a raw batch."""
        latents = self.to_latent(self.encoder(self.signal.normalize(raw)))
        return self._squeeze(self.quantizer(latents).ids)

    def decode(
        self,
        ids: Int[Array, "b y x ..."],
        key: jax.Array | None = None,
        num_steps: int | None = None,
        guidance: float | None = None,
    ) -> Num[Array, "b ..."]:
        """Draw raw images of ids.

        Args:
          ids: as `encode` returns them, of any grid that the decoder can draw.
          key: of the noise, default fixed; a sample's noise does not depend on its batch.
          num_steps: default `num_decode_steps`.
          guidance: default that of the module.
        """
        return self._draw(self.quantizer.lookup(self._expand(ids)), key, num_steps, guidance)

    def codes(self, ids: Int[Array, "b y x ..."]) -> Float[Array, "b y x l"]:
        """Return the code vectors of ids."""
        return self.quantizer.lookup(self._expand(ids))

    def decode_probabilities(
        self, probabilities: Float[Array, "b y x ... k"]
    ) -> Num[Array, "b ..."]:
        """Draw from the average code under `probabilities` [*ids.shape, k] instead of one code."""
        return self._draw(self.quantizer.mix(self._expand(probabilities)), None, None, None)

    def _draw(
        self,
        values: Float[Array, "b y x l"],
        key: jax.Array | None,
        num_steps: int | None,
        guidance: float | None,
    ) -> Num[Array, "b ..."]:
        noise_key, step_key = jax.random.split(jax.random.key(0) if key is None else key)
        size = (values.shape[1] * self.patch_size, values.shape[2] * self.patch_size)
        shape = (len(values), *size, self.signal.output_channels)
        image = self.sample(
            values,
            process.sample_noise(noise_key, shape),
            self.sampling_plan(num_steps),
            lambda i: process.sample_noise(jax.random.fold_in(step_key, i), shape),
            self.guidance if guidance is None else guidance,
        )
        return self.signal.denormalize(image)

    def sampling_plan(self, num_steps: int | None = None) -> sampling.Plan:
        """Return times and alphas of a sampling run; default `num_decode_steps` steps."""
        return sampling.plan(
            self.sampler,
            self.alphas,
            num_steps or self.num_decode_steps,
            spacing=self.spacing,
            as_published=self.as_published,
        )

    def sample(
        self,
        values: Float[Array, "b y x l"],
        noise: Float[Array, "b h w c"],
        plan: sampling.Plan,
        step_noise: sampling.StepNoise | None = None,
        guidance: float = 1.0,
    ) -> Float[Array, "b h w c"]:
        """Run the sampler from `noise` and return the image; both are in network space.

        Args:
          values: codes of the grid.
          noise: to start from.
          plan: of `sampling_plan`.
          step_noise: step number -> fresh noise; DDPM needs it.
          guidance: scale; 1 is none, ignored under as_published.
        """
        return self._run(values, noise, plan, step_noise, guidance)[0]

    def trajectory(
        self,
        values: Float[Array, "b y x l"],
        noise: Float[Array, "b h w c"],
        plan: sampling.Plan,
        step_noise: sampling.StepNoise | None = None,
        guidance: float = 1.0,
    ) -> tuple[Float[Array, "n b h w c"], Float[Array, "n b h w c"]]:
        """Return the decoder's answer and the image after every step of `sample`."""
        return self._run(values, noise, plan, step_noise, guidance)[1]

    def _run(
        self,
        values: Float[Array, "b y x l"],
        noise: Float[Array, "b h w c"],
        plan: sampling.Plan,
        step_noise: sampling.StepNoise | None,
        guidance: float,
    ) -> tuple[Float[Array, "b h w c"], tuple[Array, Array]]:
        """Final image, and the answers and images of all steps."""
        clip = self.clip or network_range(self.signal)

        def step(
            module: DiffusionAutoencoder,
            state: sampling.State,
            numbered_row: tuple[Int[Array, ""], sampling.Plan],
        ) -> tuple[sampling.State, tuple[Array, Array]]:
            index, row = numbered_row

            def fresh_noise() -> Float[Array, "b h w c"]:
                if step_noise is None:
                    raise ValueError(f"sampler {self.sampler!r} needs step_noise")
                return step_noise(index)

            times = jnp.full(noise.shape[:1], row.timestep)
            answer = module._guided(state.noised, times, values, guidance)
            state = sampling.step(
                self.sampler,
                state,
                row,
                answer,
                fresh_noise,
                prediction=self.prediction,
                clip=clip,
                as_published=self.as_published,
            )
            return state, (answer, state.noised)

        loop = nn.scan(step, variable_broadcast=("params", "codebook"), split_rngs={})
        rows = (jnp.arange(len(plan.timestep)), plan)
        state, steps = loop(self, sampling.start(self.sampler, noise), rows)
        return state.noised, steps

    def denoise(
        self,
        noised: Float[Array, "b h w c"],
        times: Int[Array, "b"],
        values: Float[Array, "b y x l"],
        condition_mask: Bool[Array, "b y x"] | None = None,
        train: bool = False,
    ) -> Float[Array, "b h w c"]:
        """Return the decoder's answer in network space; `condition_mask` True = code is used."""
        return self.decoder(noised, times, values, condition_mask, train)

    def stages(self, raw: Num[Array, "b ..."]) -> Mapping[str, Array]:
        """Every intermediate value before the decoder, channels last, for comparisons."""
        features = self.encoder(self.signal.normalize(raw))
        latents = self.to_latent(features)
        quantized = self.quantizer(latents)
        return {
            "encoder_out": features,
            "quant_proj_out": latents,
            "quant": quantized.values,
            "tokens": quantized.ids,
            "tokens_to_embedding": self.quantizer.lookup(quantized.ids),
        }

    def _quantize(self, clean: Float[Array, "b h w c"], train: bool) -> Quantized:
        learn = train and not self.freeze_encoder
        quantized = self.quantizer(self.to_latent(self.encoder(clean)), learn)
        return jax.lax.stop_gradient(quantized) if self.freeze_encoder else quantized

    def _guided(
        self,
        noised: Float[Array, "b h w c"],
        times: Int[Array, "b"],
        values: Float[Array, "b y x l"],
        guidance: float,
    ) -> Float[Array, "b h w c"]:
        if self.as_published or guidance == 1:
            return self.denoise(noised, times, values)
        # One pass over a doubled batch: with the codes, and without any.
        batch = len(values)
        noised, times, values = (jnp.concatenate([x, x]) for x in (noised, times, values))
        used = jnp.arange(2 * batch) < batch
        mask = jnp.broadcast_to(used[:, None, None], (2 * batch, *values.shape[1:3]))
        conditional, unconditional = jnp.split(self.denoise(noised, times, values, mask), 2)
        return process.guide(conditional, unconditional, guidance)

    def _squeeze(self, ids: Int[Array, "b y x h"]) -> Int[Array, "b y x ..."]:
        return ids[..., 0] if self.quantizer.num_heads == 1 else ids

    def _expand(self, values: Num[Array, "b y x ..."]) -> Num[Array, "b y x h ..."]:
        return jnp.expand_dims(values, 3) if self.quantizer.num_heads == 1 else values


def network_range(signal: Signal) -> process.Range | None:
    """Return the natural range of a signal in network space, per channel; None = unbounded."""
    if np.isinf(signal.low) and np.isinf(signal.high):
        return None
    bounds = np.array([signal.low, signal.high], np.float32)
    bounds = np.log(bounds) if signal.log else bounds
    low, high = ((bound - np.array(signal.mean)) / np.array(signal.std) for bound in bounds)
    return jnp.asarray(low, jnp.float32), jnp.asarray(high, jnp.float32)
