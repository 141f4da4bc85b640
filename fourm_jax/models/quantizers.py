"""Quantizer modules: a latent grid in, codes and ids out; the arithmetic is in ops/quantize.py."""

from collections.abc import Mapping
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fourm_jax.ops import kmeans, quantize


@flax.struct.dataclass
class Quantized:
    """Result of a quantizer: codes in place of the latents, their ids, a scalar loss."""

    values: Float[Array, "... d"]
    ids: Int[Array, "... h"]
    loss: Float[Array, ""]


class EMACodebook(nn.Module):
    """Codebook learned by running averages (docs/published.md#quantizers), `h` heads sharing it.

    State, in collection "codebook": `codes [k, d/h]`, `cluster_size [k]`, `initialized []` and,
    for the Euclidean metric, `code_sums [k, d/h]`. Statistics are those of the global batch.

    Attributes:
      num_codes, latent_dim, num_heads: k, d, h; latents are split into `num_heads` parts.
      metric: "cosine" compares directions and returns unit codes; "euclidean".
      decay: of the running averages.
      commitment_weight: of the squared distance between code and latent in the loss.
      normalize_latents: whether that distance (and the gradient path) uses unit latents; set it
        for corrected cosine codebooks, whose codes are unit vectors.
      dead_code_coefficient: codes used less than 1/coefficient of the uniform share are replaced;
        0 never replaces.
      dead_code_policy: see `ops.quantize.replace_dead`.
      kmeans_start: run k-means on the first training batch.
      as_published: return raw running averages of the codes (their norm drifts below 1), let unused
        Euclidean codes sink to the origin, and leave the cluster size of replaced codes alone
        (docs/published.md#defects).
    """

    num_codes: int
    latent_dim: int
    num_heads: int = 1
    metric: quantize.Metric = "cosine"
    decay: float = 0.99
    commitment_weight: float = 1.0
    normalize_latents: bool = False
    dead_code_coefficient: float = 32.0
    dead_code_policy: quantize.DeadCodePolicy = "batch_random"
    kmeans_start: bool = False
    as_published: bool = False

    def setup(self):
        if self.metric not in quantize.METRICS:
            raise ValueError(f"quantizer metric {self.metric!r}, allowed: {quantize.METRICS}")
        if self.dead_code_policy not in quantize.DEAD_CODE_POLICIES:
            raise ValueError(
                f"quantizer dead_code_policy {self.dead_code_policy!r}, allowed: "
                f"{quantize.DEAD_CODE_POLICIES}"
            )
        if not 0 <= self.decay <= 1:
            raise ValueError(f"quantizer decay {self.decay}, allowed: 0..1")
        for name in ("commitment_weight", "dead_code_coefficient"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"quantizer {name} {getattr(self, name)}, allowed: at least 0")
        _check_heads(self.latent_dim, self.num_heads)
        shape = (self.num_codes, self.latent_dim // self.num_heads)
        self.codes = self.variable("codebook", "codes", self._initial_codes, shape)
        # A Euclidean code is code_sums / cluster_size from the first step on. As published, the
        # sizes start at 0, although the sums do not.
        size = float(self.metric == "euclidean" and not self.as_published)
        self.cluster_size = self.variable("codebook", "cluster_size", jnp.full, shape[:1], size)
        self.initialized = self.variable(
            "codebook", "initialized", lambda: jnp.asarray(not self.kmeans_start)
        )
        if self.metric == "euclidean":
            self.code_sums = self.variable("codebook", "code_sums", lambda: self.codes.value)

    def _initial_codes(self, shape: tuple[int, int]) -> Float[Array, "k d"]:
        codes = nn.initializers.he_uniform(in_axis=-1, out_axis=-2)(self.make_rng("params"), shape)
        return quantize.l2_normalize(codes) if self.metric == "cosine" else codes

    def __call__(self, latents: Float[Array, "... d"], train: bool = False) -> Quantized:
        """Quantize; with `train` also update the codebook (collection must be mutable)."""
        head_shape = (*latents.shape[:-1], self.num_heads, self.codes.value.shape[1])
        heads = latents.astype(jnp.float32).reshape(head_shape)
        flat = jax.lax.stop_gradient(heads.reshape(-1, head_shape[-1]))
        if self.metric == "cosine":
            flat = quantize.l2_normalize(flat)
        learn = train and not self.is_initializing()
        if learn and self.kmeans_start:
            self._start(flat)
        ids = quantize.nearest(flat, self.codes.value, self.metric)
        values = self.lookup(ids.reshape(head_shape[:-1]))
        if self.normalize_latents:
            latents = quantize.l2_normalize(heads).reshape(latents.shape)
        loss = jnp.zeros(())
        if learn:
            distance = jnp.mean(jnp.square(jax.lax.stop_gradient(values) - latents))
            loss = self.commitment_weight * distance
            self._update(flat, ids)
            values = quantize.straight_through(latents.astype(jnp.float32), values)
        return Quantized(values, ids.reshape(head_shape[:-1]), loss)

    def lookup(self, ids: Int[Array, "... h"]) -> Float[Array, "... d"]:
        """Return the codes of `ids`."""
        return self._values()[ids].reshape(*ids.shape[:-1], self.latent_dim)

    def mix(self, probabilities: Float[Array, "... h k"]) -> Float[Array, "... d"]:
        """Return the average code under `probabilities` (sum 1 over the last axis)."""
        mixed = jnp.einsum("...hk,kd->...hd", probabilities, self._values())
        return mixed.reshape(*mixed.shape[:-2], self.latent_dim)

    def usage(self, ids: Int[Array, "... h"]) -> dict[str, Float[Array, ""]]:
        """Codebook statistics of a batch of ids."""
        return quantize.usage_metrics(ids, self.num_codes)

    def _values(self) -> Float[Array, "k d"]:
        codes = jnp.asarray(self.codes.value)
        corrected = self.metric == "cosine" and not self.as_published
        return quantize.l2_normalize(codes) if corrected else codes

    def _start(self, flat: Float[Array, "n d"]) -> None:
        start = jax.random.randint(self.make_rng("quantizer"), (self.num_codes,), 0, flat.shape[0])
        codes, sizes = jax.lax.cond(
            self.initialized.value,
            lambda: (self.codes.value, self.cluster_size.value),
            lambda: kmeans.kmeans(flat, flat[start], metric=self.metric),
        )
        self.codes.value, self.cluster_size.value = codes, sizes
        if self.metric == "euclidean":
            fresh = codes * sizes[:, None]
            self.code_sums.value = jnp.where(self.initialized.value, self.code_sums.value, fresh)
        self.initialized.value = jnp.ones_like(self.initialized.value)

    def _update(self, flat: Float[Array, "n d"], ids: Int[Array, "n"]) -> None:
        codes, sizes = self.codes.value, self.cluster_size.value
        if self.metric == "cosine":
            codes, sizes = quantize.update_cosine(
                codes, sizes, flat, ids, decay=self.decay, renormalize=not self.as_published
            )
        else:
            codes, sizes, self.code_sums.value = quantize.update_euclidean(
                codes,
                sizes,
                self.code_sums.value,
                flat,
                ids,
                decay=self.decay,
                keep_unused=not self.as_published,
            )
        if self.dead_code_coefficient:
            share = flat.shape[0] / self.num_codes
            threshold = share / self.dead_code_coefficient
            dead = sizes < threshold
            codes, sizes = quantize.replace_dead(
                self.make_rng("quantizer"),
                codes,
                sizes,
                flat,
                threshold=threshold,
                policy=self.dead_code_policy,
                normalize=self.as_published or self.metric == "cosine",
                reset_size=None if self.as_published else share,
                **({"noise": 1e-10} if self.as_published else {}),
            )
            if self.metric == "euclidean" and not self.as_published:
                fresh = codes * sizes[:, None]
                self.code_sums.value = jnp.where(dead[:, None], fresh, self.code_sums.value)
        self.codes.value, self.cluster_size.value = codes, sizes


class Memcodes(nn.Module):
    """Parallel codebooks learned by gradient, one per part of the latent.

    Source: docs/published.md#quantizers.

    Each head compares its part of the latent with keys and returns values, both linear maps of
    its codes. Training samples a hard choice (straight-through Gumbel-softmax); evaluation takes
    the best. There is no commitment loss.

    Attributes:
      num_codes, latent_dim, num_heads: codes per head, d, h.
      temperature: of the relaxed sample, 1 in the published models.
    """

    num_codes: int
    latent_dim: int
    num_heads: int = 1
    temperature: float = 1.0

    def setup(self):
        if not self.temperature > 0:
            raise ValueError(f"quantizer temperature {self.temperature}, allowed: above 0")
        _check_heads(self.latent_dim, self.num_heads)
        width = self.latent_dim // self.num_heads
        linear = nn.initializers.lecun_normal(in_axis=-2, out_axis=-1, batch_axis=(0,))
        normal = nn.initializers.normal(1.0)
        self.codes = self.param("codes", normal, (self.num_heads, self.num_codes, width))
        self.to_keys = self.param("to_keys", linear, (self.num_heads, width, width))
        self.to_values = self.param("to_values", linear, (self.num_heads, width, width))

    def __call__(self, latents: Float[Array, "... d"], train: bool = False) -> Quantized:
        """Quantize; with `train` sample the choice (rng stream "quantizer")."""
        width = self.latent_dim // self.num_heads
        queries = latents.astype(jnp.float32).reshape(*latents.shape[:-1], self.num_heads, width)
        keys = jnp.einsum("hkd,hdc->hkc", self.codes, self.to_keys)
        logits = jnp.einsum("...hc,hkc->...hk", queries, keys, precision="highest") * width**-0.5
        if train:
            choice = quantize.hard_gumbel(self.make_rng("quantizer"), logits, self.temperature)
            ids = jnp.argmax(choice, axis=-1).astype(jnp.int32)
            values = self.mix(choice)
        else:
            ids = jnp.argmax(logits, axis=-1).astype(jnp.int32)
            values = self.lookup(ids)
        return Quantized(values, ids, jnp.zeros(()))

    def lookup(self, ids: Int[Array, "... h"]) -> Float[Array, "... d"]:
        """Return the values of `ids`."""
        values = self._values()[jnp.arange(self.num_heads), ids]
        return values.reshape(*ids.shape[:-1], self.latent_dim)

    def mix(self, probabilities: Float[Array, "... h k"]) -> Float[Array, "... d"]:
        """Return the average value under `probabilities` (sum 1 over the last axis)."""
        mixed = jnp.einsum("...hk,hkd->...hd", probabilities, self._values())
        return mixed.reshape(*mixed.shape[:-2], self.latent_dim)

    def usage(self, ids: Int[Array, "... h"]) -> dict[str, Float[Array, ""]]:
        """Codebook statistics of a batch of ids, averaged over the codebooks."""
        per_head = jax.vmap(lambda own: quantize.usage_metrics(own, self.num_codes), in_axes=-1)
        return jax.tree.map(jnp.mean, per_head(ids))

    def _values(self) -> Float[Array, "h k d"]:
        return jnp.einsum("hkd,hdc->hkc", self.codes, self.to_values)


def _check_heads(latent_dim: int, num_heads: int) -> None:
    if num_heads < 1 or latent_dim % num_heads:
        raise ValueError(f"latent_dim {latent_dim} not divisible by {num_heads} heads")


TYPES: Mapping[str, type[nn.Module]] = {"ema": EMACodebook, "memcodes": Memcodes}


def make(kind: str, **fields: Any) -> nn.Module:
    """Return the quantizer of a key of `TYPES`.

    Raises:
      ValueError: unknown kind.
    """
    if kind not in TYPES:
        raise ValueError(f"quantizer_type {kind!r}, allowed: {sorted(TYPES)}")
    return TYPES[kind](**fields)
