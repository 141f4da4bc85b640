"""Whether what a step makes, and what is saved, consists of numbers."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree, Shaped

from fourm_jax.train.state import TrainState
from fourm_jax.utils import tree


def select(
    good: Bool[Array, ""], new: Shaped[Array, "*n"], old: Shaped[Array, "*n"]
) -> Shaped[Array, "*n"]:
    """`new` after a good step, `old` after another one and where an element of `new` is no number.

    To leave out all of an update for one element of it, all of it would have to be computed before
    any is written: one more pass over parameters and moments. This costs none.
    """
    if jnp.issubdtype(new.dtype, jnp.inexact):
        good = good & jnp.isfinite(new)
    return jnp.where(good, new, old)


def check(state: TrainState, step: int) -> None:
    """Check parameters, their running average and codebooks before they are saved.

    The train step keeps numbers numbers (`select`), so what is not was read so.

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
