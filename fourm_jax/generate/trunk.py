"""The trunk behind the two interfaces that generation loops take."""

import dataclasses
from typing import Any

import flax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fourm_jax.contracts import TokenBatch
from fourm_jax.generate import state as states
from fourm_jax.generate.grids import TokensToLogits
from fourm_jax.models import fourm
from fourm_jax.models.fourm import DecoderCache, FourM
from fourm_jax.utils import hardware


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
      head: rows of the target's head, cut from the table once. In two parts on a CPU, which reads
        them on two cores; with one token per row reading them is what a product costs.
    """

    cache: DecoderCache
    head: tuple[Float[Array, "_ d"], ...]


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
            num_parts = 2 if hardware.platform() == "cpu" else 1
            return SequenceMemory(
                cache, tuple(jnp.array_split(module.head(self.target), num_parts))
            )

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
        logits = [fourm.head_logits(features[:, 0], part) for part in memory.head]
        return jnp.concatenate(logits, axis=-1), memory.replace(cache=cache)
