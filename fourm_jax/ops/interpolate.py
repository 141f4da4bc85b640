"""Resize position tables on the host: bicubic, as the published tokenizers do at every forward."""

import numpy as np
from jaxtyping import Float

_A = -0.75  # of Keys' cubic kernel; PyTorch's value (OpenCV's too), Pillow takes -0.5


def resize_bicubic(
    table: Float[np.ndarray, "h w d"], size: tuple[int, int]
) -> Float[np.ndarray, "y x d"]:
    """Resize rows and columns to `size`, half-pixel centres (align_corners False), no antialias."""
    rows = bicubic_weights(table.shape[0], size[0])
    columns = bicubic_weights(table.shape[1], size[1])
    return np.einsum("yh,hwd,xw->yxd", rows, table.astype(np.float64), columns).astype(np.float32)


def bicubic_weights(num_inputs: int, num_outputs: int) -> Float[np.ndarray, "o i"]:
    """Return the matrix of a 1-D bicubic resize; inputs beyond the border repeat the last one."""
    weights = np.zeros((num_outputs, num_inputs))
    for output in range(num_outputs):
        centre = (output + 0.5) * num_inputs / num_outputs - 0.5
        first = int(np.floor(centre)) - 1
        for source in range(first, first + 4):
            nearest = min(max(source, 0), num_inputs - 1)
            weights[output, nearest] += _kernel(abs(centre - source))
    return weights


def _kernel(distance: float) -> float:
    """Keys (1981), equation 15, with coefficient a."""
    if distance <= 1:
        return (_A + 2) * distance**3 - (_A + 3) * distance**2 + 1
    if distance < 2:
        return _A * (distance**3 - 5 * distance**2 + 8 * distance - 4)
    return 0.0
