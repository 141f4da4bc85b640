"""Dense features by their first three principal components, ±2 deviations."""

import numpy as np
from jaxtyping import Float

from fourm_jax.evals.drawing import Draw, Scale
from fourm_jax.evals.pictures import Picture


def make(scale: Scale) -> Draw:
    """Return the drawing of feature maps in the components of the reference."""
    components = None if scale.reference is None else principal_components(scale.reference)

    def draw(value: Float[np.ndarray, "h w c"], picture: Picture | None = None) -> Picture:
        mean, directions = components or principal_components(value[None])
        return np.clip(127.5 + 63.75 * ((value - mean) @ directions), 0, 255).astype(np.uint8)

    return draw


def principal_components(
    reference: Float[np.ndarray, "n h w c"],
) -> tuple[Float[np.ndarray, "c"], Float[np.ndarray, "c 3"]]:
    """Mean and scaled first three components of a feature set."""
    flat = np.asarray(reference, np.float32).reshape(-1, reference.shape[-1])
    mean = flat.mean(0)
    _, singular, rows = np.linalg.svd(flat - mean, full_matrices=False)
    scale = singular[:3] / np.sqrt(len(flat)) + 1e-6
    return mean, rows[:3].T / scale
