"""The trunk behind the two interfaces that generation loops take."""

import dataclasses
import functools
from typing import Any

import flax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fourm_jax.contracts import TokenBatch
from fourm_jax.generate import state as states
from fourm_jax.generate.grids import TokensToLogits
from fourm_jax.models import fourm
from fourm_jax.models.fourm import DecoderCache, FourM


def with_cast_kernels(model: FourM, params: Any) -> Any:
    """The parameters with the kernels of all blocks in the dtype of the computation.

    Every pass casts them otherwise; the results are the same.
    """
    if jnp.dtype(model.dtype) == jnp.float32:
        return params
    stacks = {name: params[name] for name in ("encoder", "decoder")}
    return {**params, **_cast(stacks, jnp.dtype(model.dtype))}


@functools.partial(jax.jit, static_argnames="dtype")
def _cast(stacks: Any, dtype: jnp.dtype) -> Any:
    # As `transformer.Stack` does: [l, d] are scales and biases.
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if leaf.ndim > 2 else leaf, stacks)


def tokens_to_logits(model: FourM, params: Any, target: str) -> TokensToLogits:
    """Logits of all target slots, which must all belong to modality `target`."""

    def logits(module: FourM, tokens: TokenBatch) -> Float[Array, "g m vocab"]:
        return module.logits(module(tokens), target)

    def apply(tokens: TokenBatch) -> Any:  # Flax knows no type of what a method returns
        return model.apply({"params": params}, tokens, method=logits)

    return apply


class SequenceMemory(flax.struct.PyTreeNode):
    """What is kept between tokens.

    Attributes:
      cache: of the decoder.
      head: rows of the target's head, cut from the table once.
    """

    cache: DecoderCache
    head: Float[Array, "vocab d"]


@dataclasses.dataclass(frozen=True)
class TrunkSequenceDecoder:
    """`sequences.SequenceDecoder` that keeps keys and values between steps."""

    model: FourM
    params: Any
    target: str

    def start(self, tokens: TokenBatch, num_steps: int) -> SequenceMemory:
        """Encode once; the memory has room for `num_steps` tokens."""

        def start(module: FourM, tokens: TokenBatch) -> SequenceMemory:
            cache = module.start_cache(module.encode(tokens), num_steps)
            return SequenceMemory(cache, module.head(self.target))

        memory: Any = self.model.apply({"params": self.params}, tokens, method=start)
        return memory

    def step(
        self, memory: SequenceMemory, token: Int[Array, "g"], index: Int[Array, ""]
    ) -> tuple[Float[Array, "g vocab"], SequenceMemory]:
        """Put one token per row through the decoder."""
        modality = states.index_of(self.model.modalities, self.target)
        targets = states.next_target(modality, token, index)
        result: Any = self.model.apply(
            {"params": self.params}, targets, memory.cache, method="decode_step"
        )
        features, cache = result
        logits = fourm.head_logits(features[:, 0], memory.head)
        return logits, memory.replace(cache=cache)
