"""Gaussian diffusion on plain arrays: noising, what networks predict, and one sampling step."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fourm_jax.contracts import AnyArray

Prediction = Literal["sample", "epsilon", "v"]
PREDICTIONS = ("sample", "epsilon", "v")
Range = tuple[Float[Array, "*c"] | float, Float[Array, "*c"] | float]


def add_noise(
    clean: Float[Array, "b *s"], noise: Float[Array, "b *s"], alpha: Float[AnyArray, "*b"]
) -> Float[Array, "b *s"]:
    """Return √ᾱ x + √(1-ᾱ) ε, the noised image (Ho et al. 2020, equation 4).

    Args:
      clean, noise: x and ε.
      alpha: ᾱ, the cumulative alpha at the time of each sample (or of all), 0..1.
    """
    signal, rest = _roots(alpha, clean)
    return signal * clean + rest * noise


def velocity(
    clean: Float[Array, "b *s"], noise: Float[Array, "b *s"], alpha: Float[AnyArray, "*b"]
) -> Float[Array, "b *s"]:
    """Return √ᾱ ε - √(1-ᾱ) x (Salimans and Ho 2022, appendix D)."""
    signal, rest = _roots(alpha, clean)
    return signal * noise - rest * clean


def target(
    clean: Float[Array, "b *s"],
    noise: Float[Array, "b *s"],
    alpha: Float[AnyArray, "*b"],
    prediction: Prediction,
) -> Float[Array, "b *s"]:
    """Return what a network with this `prediction` should output; ValueError for an unknown one."""
    targets = {"sample": clean, "epsilon": noise, "v": velocity(clean, noise, alpha)}
    if prediction not in targets:
        raise ValueError(f"prediction {prediction!r}, allowed: {PREDICTIONS}")
    return targets[prediction]


def clean_and_noise(
    noised: Float[Array, "b *s"],
    output: Float[Array, "b *s"],
    alpha: Float[AnyArray, "*b"],
    prediction: Prediction,
) -> tuple[Float[Array, "b *s"], Float[Array, "b *s"]]:
    """Return the estimates of image and noise that a network's `output` stands for.

    Args:
      noised: what the network saw.
      output: its answer.
      alpha: cumulative alpha, one for all samples or one each. Where it is 0, an "epsilon" output
        says nothing about the image (the estimate is not finite).
      prediction: what the output means.

    Raises:
      ValueError: unknown prediction.
    """
    signal, rest = _roots(alpha, noised)
    if prediction == "sample":
        return output, (noised - signal * output) / rest
    if prediction == "epsilon":
        return (noised - rest * output) / signal, output
    if prediction == "v":
        return signal * noised - rest * output, signal * output + rest * noised
    raise ValueError(f"prediction {prediction!r}, allowed: {PREDICTIONS}")


def ddim_step(
    noised: Float[Array, "b *s"],
    output: Float[Array, "b *s"],
    alpha: Float[AnyArray, ""],
    alpha_next: Float[AnyArray, ""],
    *,
    prediction: Prediction,
    clip: Range | None = None,
    eta: float = 0.0,
    noise: Float[Array, "b *s"] | None = None,
    as_published: bool = False,
) -> tuple[Float[Array, "b *s"], Float[Array, "b *s"]]:
    """Go from cumulative alpha `alpha` to `alpha_next` (Song et al. 2020, equation 12).

    Args:
      noised, output, prediction: as for `clean_and_noise`.
      alpha, alpha_next: of the time left and of the time reached (1 = clean).
      clip: (low, high) of the image, scalars or one per channel.
      eta: share of the variance that is drawn anew; needs `noise` where it is not 0.
      noise: standard normal.
      as_published: keep the noise estimate of the image before clipping, so that the two no
        longer add up to `noised`.

    Returns:
      The image at the time reached, and the estimate of the clean image.
    """
    clean, estimate = clean_and_noise(noised, output, alpha, prediction)
    if clip is not None:
        clean = jnp.clip(clean, *clip)
        if not as_published:
            # where no noise is left to estimate, the network's own estimate stays
            consistent = (noised - jnp.sqrt(alpha) * clean) / jnp.sqrt(1 - alpha)
            estimate = jnp.where(alpha < 1, consistent, estimate)
    variance = (1 - alpha_next) / (1 - alpha) * (1 - alpha / alpha_next)
    reached = jnp.sqrt(alpha_next) * clean
    reached += jnp.sqrt(1 - alpha_next - eta**2 * variance) * estimate
    if eta:
        assert noise is not None, "eta needs noise"
        reached += eta * jnp.sqrt(variance) * noise
    return reached, clean


def ddpm_step(
    noised: Float[Array, "b *s"],
    output: Float[Array, "b *s"],
    alpha: Float[AnyArray, ""],
    alpha_next: Float[AnyArray, ""],
    noise: Float[Array, "b *s"],
    *,
    prediction: Prediction,
    clip: Range | None = None,
) -> tuple[Float[Array, "b *s"], Float[Array, "b *s"]]:
    """Draw from the posterior q(x_next | x, x0) (Ho et al. 2020, equations 6 and 7).

    Arguments and results as for `ddim_step`. The step to the clean image (`alpha_next` 1) has no
    variance.
    """
    clean, _ = clean_and_noise(noised, output, alpha, prediction)
    clean = clean if clip is None else jnp.clip(clean, *clip)
    kept = alpha / alpha_next
    share = (1 - alpha_next) / (1 - alpha)
    reached = jnp.sqrt(alpha_next) * (1 - kept) / (1 - alpha) * clean
    reached += jnp.sqrt(kept) * share * noised
    return reached + jnp.sqrt(share * (1 - kept)) * noise, clean


def guide(
    conditional: Float[Array, "b *s"], unconditional: Float[Array, "b *s"], scale: float
) -> Float[Array, "b *s"]:
    """Classifier-free guidance (Ho and Salimans 2022); scale 1 is the conditional output."""
    return unconditional + scale * (conditional - unconditional)


def keep_condition(
    key: jax.Array,
    shape: tuple[int, int, int],
    rate: float,
    num_lost: tuple[int, int] | None = None,
) -> Bool[Array, "b y x"]:
    """Draw which positions of the condition training uses; guidance needs samples without.

    Args:
      key: of the draw.
      shape: [b, y, x] of the condition.
      rate: share of samples that lose positions.
      num_lost: (fewest, most) positions that such a sample loses, drawn uniformly; None = all.
    """
    drop_key, count_key, order_key = jax.random.split(key, 3)
    batch, positions = shape[0], shape[1] * shape[2]
    fewest, most = (positions, positions) if num_lost is None else num_lost
    lost = jax.random.randint(count_key, (batch, 1), fewest, most + 1)
    rank = jnp.argsort(jax.random.uniform(order_key, (batch, positions)), axis=-1)
    dropped = jax.random.bernoulli(drop_key, rate, (batch, 1))
    return ~(dropped & (rank < lost)).reshape(shape)


def sample_noise(key: jax.Array, shape: tuple[int, ...]) -> Float[Array, "b *s"]:
    """Standard normal noise that depends, row by row, on the row's index and not on the batch."""
    keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.arange(shape[0]))
    return jax.vmap(lambda row_key: jax.random.normal(row_key, shape[1:]))(keys)


def _roots(alpha: Float[AnyArray, "*b"], like: Float[Array, "b *s"]) -> tuple[Array, Array]:
    """√ᾱ and √(1-ᾱ), shaped to multiply `like`."""
    alpha = jnp.asarray(alpha, jnp.float32)
    alpha = alpha.reshape(alpha.shape + (1,) * (like.ndim - 1 if alpha.ndim else 0))
    return jnp.sqrt(alpha), jnp.sqrt(1 - alpha)
