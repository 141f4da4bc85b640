"""What a raw signal looks like: its type and range, and the map to network space and back."""

import dataclasses
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from fourm_jax.ops import quantize

Kind = Literal["continuous", "binary", "classes"]
KINDS: tuple[str, ...] = get_args(Kind)
AXES = ("hwc", "hw", "c")
DTYPES = ("uint8", "int32", "float32")
VOID = 255  # what other maps of classes store where there is none
PUBLISHED = (
    "where 255 is no class, as in published maps, the label is (class + 1) mod 256 "
    "(docs/published.md#modalities)"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Signal:
    """Raw arrays of one modality, in their natural range; raw goes in and raw comes out.

    Attributes:
      axes: of one sample: "hwc" image with channels, "hw" without, "c" vector.
      dtype: of raw arrays.
      kind: "continuous"; "binary" (two values, `low` and `high`; the network predicts a logit, and
        what lies between the two, as in a map that a crop has made smaller, is its share of
        `high`); "classes" (integer ids; the network predicts class logits).
      num_channels: of "hwc" and "c" signals.
      num_classes: of the "classes" kind.
      low, high: natural range; decoded values are clipped into it.
      log: work on the logarithm of raw values (depth).
      mean, std: network value = (value - mean) / std, one number or one per channel, after `log`.
      unit: vectors along the channels have length 1 (surface normals).
      standardize: each picture by its own mean and deviation, the lowest and highest tenth of its
        values left out; decoded pictures stay so, as ids know no scale (published depth).
    """

    axes: str = "hwc"
    dtype: str = "float32"
    kind: Kind = "continuous"
    num_channels: int = 1
    num_classes: int = 0
    low: float = -np.inf
    high: float = np.inf
    log: bool = False
    mean: float | tuple[float, ...] = 0.0
    std: float | tuple[float, ...] = 1.0
    unit: bool = False
    standardize: bool = False

    def __post_init__(self):
        for name, allowed in (("axes", AXES), ("dtype", DTYPES), ("kind", KINDS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"signal {name} {getattr(self, name)!r}, allowed: {allowed}")
        if (self.kind == "classes") != (self.num_classes > 0):
            raise ValueError(f"signal kind {self.kind!r} with num_classes {self.num_classes}")
        if self.log and not self.low > 0:
            raise ValueError(f"signal with log needs low > 0, got {self.low}")
        for name in ("mean", "std"):  # JSON knows lists only; fields must be hashable
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        self._check_numbers()

    def _check_numbers(self) -> None:
        """Refuse what would make no numbers of a signal, or other values than those that went in.

        Raises:
          ValueError: names the field, its value and what is allowed.
        """
        bounds = f"low {self.low} and high {self.high}"
        if not self.low < self.high:
            raise ValueError(f"signal {bounds}, allowed: low < high")
        if self.kind == "binary" and not np.isfinite([self.low, self.high]).all():
            raise ValueError(f"signal of kind 'binary' with {bounds}, allowed: its two values")
        if self.standardize and (self.log or np.isfinite([self.low, self.high]).any()):
            raise ValueError(
                f"signal with standardize, log {self.log}, {bounds}: decoded values have a scale "
                "of their own; allowed: neither log nor bounds"
            )
        if self.dtype == "uint8" and self.num_classes > 256:
            raise ValueError(f"signal num_classes {self.num_classes}, allowed in uint8: 256")
        if self.num_channels < 1:
            raise ValueError(f"signal num_channels {self.num_channels}, allowed: at least 1")
        for name in ("mean", "std"):
            values = np.atleast_1d(np.asarray(getattr(self, name), np.float64))
            if values.shape not in ((1,), (self.output_channels,)) or not np.isfinite(values).all():
                raise ValueError(
                    f"signal {name} {getattr(self, name)}, allowed: a number, or one for each of "
                    f"{self.output_channels} channels"
                )
            if name == "std" and not (values > 0).all():
                raise ValueError(f"signal std {self.std}, allowed: above 0")

    @property
    def output_channels(self) -> int:
        """Channels that a decoder predicts."""
        return self.num_classes or (1 if self.axes == "hw" else self.num_channels)

    @property
    def is_image(self) -> bool:
        """Whether samples have spatial axes."""
        return self.axes != "c"

    def normalize(self, raw: Num[Array, "..."]) -> Float[Array, "b h w c"] | Int[Array, "b h w"]:
        """Map raw [b, *axes] to network space; class ids stay ids, vectors become 1 x 1 images."""
        if self.kind == "classes":
            return raw.astype(jnp.int32)
        value = raw.astype(jnp.float32)
        if self.axes == "hw":
            value = value[..., None]
        elif self.axes == "c":
            value = value[:, None, None, :]
        if self.kind == "binary":
            return (value - self.low) / (self.high - self.low)
        value = jnp.log(jnp.maximum(value, self.low)) if self.log else value
        value = _standardized(value) if self.standardize else value
        return (value - jnp.asarray(self.mean)) / jnp.asarray(self.std)

    def denormalize(self, value: Float[Array, "b h w c"]) -> Num[Array, "..."]:
        """Map network output (values or logits) back to raw, inside the natural range."""
        if self.kind == "classes":
            return jnp.argmax(value, axis=-1).astype(self.dtype)
        if self.kind == "binary":
            value = jnp.where(value > 0, self.high, self.low)
        else:
            value = value * jnp.asarray(self.std) + jnp.asarray(self.mean)
            value = jnp.exp(value) if self.log else value
            value = quantize.l2_normalize(value) if self.unit else value
            value = jnp.clip(value, self.low, self.high)
        if self.axes == "hw":
            value = value[..., 0]
        elif self.axes == "c":
            value = value[:, 0, 0, :]
        if self.dtype != "float32":
            value = jnp.round(value)
        return value.astype(self.dtype)

    def from_stored(self, raw: np.ndarray) -> np.ndarray:
        """Raw values of pictures as files store them; all else as it is.

        Normals are 0..255 for -1..1; depth that is standardized may be of any unit.
        """
        raw = np.asarray(raw)
        if self.unit and raw.dtype == np.uint8:
            return (raw / np.float32(127.5) - 1).astype(np.float32)
        if self.standardize and raw.dtype in (np.uint8, np.uint16):
            return (raw / np.float32(np.iinfo(raw.dtype).max)).astype(np.float32)
        return raw

    def taken(self, raw: np.ndarray, who: str, patch_size: int = 1) -> np.ndarray:
        """One sample as it is stored -> as the tokenizer takes it; ValueError if it cannot be."""
        raw = self.from_stored(raw)
        self.check(raw[None], who, patch_size)
        return raw

    def check(self, raw: np.ndarray, who: str, patch_size: int = 1) -> None:
        """Raise ValueError unless `raw` is a batch of this signal (host only)."""
        expected = f"{who} expects {self.describe()}"
        raw = np.asarray(raw)
        fits = raw.dtype == self.dtype or (self.kind == "classes" and raw.dtype.kind in "iu")
        if not fits:
            raise ValueError(f"{expected}; got dtype {raw.dtype}{self._dtype_hint(raw)}")
        if raw.ndim != 1 + len(self.axes):
            raise ValueError(f"{expected}; got shape {raw.shape}")
        if self.axes.endswith("c") and raw.shape[-1] != self.num_channels:
            raise ValueError(f"{expected}; got shape {raw.shape}")
        if self.is_image and (raw.shape[1] % patch_size or raw.shape[2] % patch_size):
            raise ValueError(f"{expected} with sides divisible by {patch_size}; got {raw.shape}")
        if not raw.size:
            raise ValueError(f"{expected}; got an empty array of shape {raw.shape}")
        low, high = (0, self.num_classes - 1) if self.num_classes else (self.low, self.high)
        smallest, largest = raw.min(), raw.max()
        slack = 1e-4 * (high - low) if np.isfinite(high - low) else 0.0
        finite = np.isfinite(smallest) and np.isfinite(largest)
        if not (finite and smallest >= low - slack and largest <= high + slack):
            is_void = largest == VOID and self.kind == "classes"
            hint = f"; {PUBLISHED}" if is_void else ""
            raise ValueError(f"{expected}; got values in {smallest} … {largest}{hint}")

    def describe(self) -> str:
        """One phrase: dtype, axes and range."""
        axes = "[" + ", ".join(["b", *self.axes.removesuffix("c")]) + "]"
        if self.axes.endswith("c"):
            axes = axes.replace("]", f", {self.num_channels}]")
        if self.kind == "classes":
            return f"class ids {axes} in 0 … {self.num_classes - 1}"
        return f"{self.dtype} {axes} in {self.low:g} … {self.high:g}"

    def _dtype_hint(self, raw: np.ndarray) -> str:
        if self.kind == "classes":
            return "; pass the class index of every pixel, not a picture of the map"
        if self.dtype == "uint8" and raw.dtype.kind == "f":
            return "; pass the image as stored (0 … 255): normalization happens inside"
        if raw.dtype.kind in "iu" and self.dtype == "float32":
            return "; integers of a file have another range: bring them into this one first"
        return f"; convert with .astype({self.dtype!r}) if the range is right"

    def example(self, key: jax.Array, size: tuple[int, int], batch: int) -> Num[Array, "..."]:
        """Random raw batch inside the natural range, for tests and shape inference."""
        by_axes = {"hwc": (*size, self.num_channels), "hw": size, "c": (self.num_channels,)}
        shape = (batch, *by_axes[self.axes])
        if self.kind == "classes":
            return jax.random.randint(key, shape, 0, self.num_classes).astype(self.dtype)
        if self.kind == "binary":
            heads = jax.random.bernoulli(key, 0.5, shape)
            return jnp.where(heads, self.high, self.low).astype(self.dtype)
        low = self.low if np.isfinite(self.low) else -1.0
        high = self.high if np.isfinite(self.high) else 1.0
        value = jax.random.uniform(key, shape, minval=low, maxval=high)
        value = quantize.l2_normalize(value) if self.unit else value
        return value.astype(self.dtype)


def _standardized(value: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """(x - mean) / sqrt(variance + 1e-6) of the middle 80 % of each picture's values."""
    ordered = jnp.sort(value.reshape(len(value), -1), axis=1)
    cut = ordered.shape[1] // 10
    middle = ordered[:, cut : ordered.shape[1] - cut]
    mean, variance = (part(middle, axis=1)[:, None, None, None] for part in (jnp.mean, jnp.var))
    return (value - mean) / jnp.sqrt(variance + 1e-6)
