"""Whether what is saved consists of numbers."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

from fourm_jax.train.state import TrainState
from fourm_jax.utils import tree


def check(state: TrainState, step: int) -> None:
    """Check parameters, their running average and codebooks before they are saved.

    The train step leaves out gradients that are not finite; an update can still overflow.

    Raises:
      FloatingPointError: names the first array that holds NaN or infinity.
    """
    arrays = {
        "params": state.params,
        "model_state": state.model_state,
        "ema_params": state.ema_params,
    }
    names = list(tree.named_leaves(arrays))
    wrong = [
        name
        for name, good in zip(names, jax.device_get(_are_finite(arrays)), strict=True)
        if not good
    ]
    if wrong:
        raise FloatingPointError(
            f"after step {step} {len(wrong)} of {len(names)} arrays are not finite, the first: "
            f"{wrong[0]}. They are not saved and the checkpoint before is untouched; try a smaller "
            "optimizer.lr, a longer warm-up or optimizer.clip_norm"
        )


@jax.jit
def _are_finite(arrays: PyTree) -> Bool[Array, "n"]:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(arrays)])
