"""Angle between predicted and true surface normals."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float

from fourm_jax.evals.measures import masked_mean
from fourm_jax.tokenizers.signal import Signal
from fourm_jax.utils import errors

STATISTICS: Mapping[str, Callable[..., np.floating]] = {"mean": np.mean, "median": np.median}


@dataclasses.dataclass(frozen=True, kw_only=True)
class AngularError:
    """Mean or median angle in degrees over all pixels, of vectors of any length.

    A predicted vector without direction counts 90 degrees; pixels whose true one has none, or is
    not finite, do not count.
    """

    statistic: str = "mean"
    metric: str = "mean_angular_error_deg"
    unit: str = ""
    higher_is_better: bool = False

    def score(
        self, predicted: Float[np.ndarray, "... 3"], truth: Float[np.ndarray, "... 3"]
    ) -> float:
        """Over the set; `predicted` broadcasts."""
        angles = _angles(predicted, truth)[_has_direction(truth)]
        return float(STATISTICS[self.statistic](angles)) if angles.size else float("nan")

    def parts(
        self, predicted: Float[np.ndarray, "... 3"], truth: Float[np.ndarray, "n ... 3"]
    ) -> list[Float[np.ndarray, "_k"]]:
        """Angles of the pixels that count, of every map."""
        angles = np.broadcast_to(_angles(predicted, truth), truth.shape[:-1])
        return [own[mask] for own, mask in zip(angles, _has_direction(truth), strict=True)]

    def total(self, parts: Sequence[Float[np.ndarray, "_k"]]) -> float:
        """Over maps; nan where nothing counts."""
        count = sum(one.size for one in parts)
        if not count:
            return float("nan")
        if self.statistic == "mean":  # without a copy of all angles
            return float(sum(one.sum() for one in parts) / count)
        return float(STATISTICS[self.statistic](np.concatenate(parts)))

    def constant(self, values: Float[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "h w 3"]:
        """The mean normal of each pixel over the maps that have one there, of unit length."""
        values = np.asarray(values)
        return _unit(masked_mean.masked_mean(values, _has_direction(values)))


def make(signal: Signal | None, statistic: str = "mean") -> AngularError:
    """Return the measure.

    Raises:
      ValueError: a statistic other than "mean" and "median".
    """
    del signal
    if statistic not in STATISTICS:
        raise ValueError(errors.unknown_value("statistic", statistic, STATISTICS))
    return AngularError(statistic=statistic, metric=f"{statistic}_angular_error_deg")


def _has_direction(vectors: Float[np.ndarray, "... 3"]) -> Bool[np.ndarray, "..."]:
    return np.isfinite(vectors).all(axis=-1) & (np.linalg.norm(vectors, axis=-1) > 1e-12)


def _angles(
    predicted: Float[np.ndarray, "... 3"], truth: Float[np.ndarray, "... 3"]
) -> Float[np.ndarray, "..."]:
    """In degrees; what has no direction counts 90."""
    first, second = (_unit(np.asarray(one, np.float64)) for one in (predicted, truth))
    return np.rad2deg(np.arccos(np.clip(np.sum(first * second, axis=-1), -1.0, 1.0)))


def _unit(vectors: Float[np.ndarray, "... 3"]) -> Float[np.ndarray, "... 3"]:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length < 1e-12, 1.0, length)
