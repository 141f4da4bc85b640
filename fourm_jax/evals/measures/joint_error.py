"""Errors of 3-D joints: mean distance per joint, in place or after Procrustes alignment."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

from fourm_jax.evals.measures import masked_mean
from fourm_jax.tokenizers.signal import Signal


@dataclasses.dataclass(frozen=True, kw_only=True)
class JointError:
    """MPJPE: mean distance of predicted and true joints; joints that are not finite do not count.

    `root` is the joint that both are moved onto first, and without which a pose does not count; -1:
    none. With `align` (PA-MPJPE) each
    prediction is moved, turned and scaled onto its truth by least squares (Umeyama 1991).
    """

    align: bool = False
    root: int = -1
    unit: str = ""
    higher_is_better: bool = False

    @property
    def metric(self) -> str:
        """Which of the two it is."""
        return "pa_mpjpe" if self.align else "mpjpe"

    def score(
        self, predicted: Float[np.ndarray, "*n j 3"], truth: Float[np.ndarray, "n j 3"]
    ) -> float:
        """Mean over the joints of the set; `predicted` may be one pose for all."""
        truth = np.asarray(truth, np.float64)
        predicted = np.broadcast_to(np.asarray(predicted, np.float64), truth.shape)
        distances = []
        for guess, real in zip(predicted, truth, strict=True):
            valid = np.isfinite(real).all(axis=-1)
            if self.root >= 0:
                valid &= valid[self.root]
                guess, real = guess - guess[self.root], real - real[self.root]
            if self.align and valid.sum() > 2:
                guess = procrustes(guess, real, valid)
            distances.append(np.linalg.norm(guess - real, axis=-1)[valid])
        joined = np.concatenate(distances)
        return float(joined.mean()) if joined.size else float("nan")

    def constant(self, values: Float[np.ndarray, "n j 3"]) -> Float[np.ndarray, "j 3"]:
        """The mean pose, of each joint over the poses that have it."""
        values = np.asarray(values)
        return masked_mean.masked_mean(values, np.isfinite(values).all(axis=-1))


def procrustes(
    points: Float[np.ndarray, "j 3"], target: Float[np.ndarray, "j 3"], valid: Bool[np.ndarray, "j"]
) -> Float[np.ndarray, "j 3"]:
    """The points, moved, turned (without a mirror) and scaled as near to the target as possible."""
    middle, aim = points[valid].mean(0), target[valid].mean(0)
    own, wanted = points[valid] - middle, target[valid] - aim
    left, values, right = np.linalg.svd(own.T @ wanted)
    signs = np.ones(3)
    signs[-1] = np.sign(np.linalg.det(left @ right))
    spread = (own**2).sum()
    scale = (values * signs).sum() / spread if spread else 1.0
    return scale * (points - middle) @ (left * signs) @ right + aim


def make(signal: Signal | None, align: bool = False, root: int = -1, unit: str = "") -> JointError:
    """Return the measure."""
    del signal
    return JointError(align=align, root=root, unit=unit)
