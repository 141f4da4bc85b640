"""Static sizes that follow what is known and open: few of them, so that few programs compile.

A pass pays for the tokens that are there: targets to come take no slot of the encoder, a target
that is half written takes half of its slots there and the other half in the decoder.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from fourm_jax.generate.state import State, Widths

NUM_BUCKETS = 3  # sizes of one modality, and 0
Known = Mapping[str, tuple[int, int]]  # fewest and most known tokens of any row, by modality
SMALLEST = 64  # slots; smaller modalities are there as a whole or not at all


def bucket(count: int, size: int) -> int:
    """Slots for `count` of at most `size` tokens, rounded up to a third of the size.

    bucket(0, 196) -> 0, bucket(1, 196) -> 66, bucket(133, 196) -> 196
    """
    unit = max(-(-size // NUM_BUCKETS), SMALLEST)
    return max(0, min(-(-count // unit) * unit, size))


def known_range(state: State) -> Known:
    """Fewest and most known tokens of any row and branch, by modality; waits for the device."""
    return {
        name: (int(fewest), int(most))
        for name, (fewest, most) in jax.device_get(_known_range(state)).items()
    }


@jax.jit
def _known_range(state: State) -> Mapping[str, tuple[Int[Array, ""], Int[Array, ""]]]:
    counts = {name: jnp.sum(known, axis=1) for name, known in state.known.items()}
    for branch in state.variants.values():
        for name, (_, known) in branch.items():
            counts[name] = jnp.concatenate([counts[name], jnp.sum(known, axis=1)])
    return {name: (count.min(), count.max()) for name, count in counts.items()}


def input_widths(
    state: State,
    known: Known,
    *,
    written: Mapping[str, int],
    hidden: Mapping[str, int],
) -> Widths:
    """Encoder slots of every modality of a state; see `state.input_tokens`.

    Args:
      known: of `known_range`.
      written: tokens by modality that were written since then.
      hidden: modalities that guidance hides, and how many tokens each one leaves.
    """
    # In one order: what comes back from a compiled program has its names sorted.
    counts = {name: known[name][1] + written.get(name, 0) for name in sorted(state.ids)}
    counts.update(hidden)
    if not any(counts.values()):
        # An encoder without any slot would have nothing to do.
        counts[min(counts, key=lambda name: state.ids[name].shape[1])] = 1
    return tuple((name, bucket(count, state.ids[name].shape[1])) for name, count in counts.items())


def common(widths: Sequence[Widths]) -> Widths:
    """Slots that are enough for each of several branches."""
    return tuple(
        (several[0][0], max(width for _, width in several)) for several in zip(*widths, strict=True)
    )
