"""The trunk behind the two interfaces that generation loops take."""

import dataclasses
from typing import Any

from jaxtyping import Array, Float, Int

from fourm_jax.contracts import TargetTokens, TokenBatch
from fourm_jax.generate import state as states
from fourm_jax.generate.grids import TokensToLogits
from fourm_jax.models.fourm import DecoderCache, FourM


def tokens_to_logits(model: FourM, params: Any, target: str) -> TokensToLogits:
    """Logits of all target slots, which must all belong to modality `target`."""

    def logits(module: FourM, tokens: TokenBatch) -> Float[Array, "g m vocab"]:
        return module.logits(module(tokens), target)

    def apply(tokens: TokenBatch) -> Any:  # Flax knows no type of what a method returns
        return model.apply({"params": params}, tokens, method=logits)

    return apply


@dataclasses.dataclass(frozen=True)
class TrunkSequenceDecoder:
    """`sequences.SequenceDecoder` that keeps keys and values between steps."""

    model: FourM
    params: Any
    target: str

    def start(self, tokens: TokenBatch, num_steps: int) -> DecoderCache:
        """Encode once; the memory has room for `num_steps` tokens."""

        def start(module: FourM, tokens: TokenBatch) -> DecoderCache:
            return module.start_cache(module.encode(tokens), num_steps)

        memory: Any = self.model.apply({"params": self.params}, tokens, method=start)
        return memory

    def step(
        self, memory: DecoderCache, token: Int[Array, "g"], index: Int[Array, ""]
    ) -> tuple[Float[Array, "g vocab"], DecoderCache]:
        """Put one token per row through the decoder."""
        modality = states.index_of(self.model.modalities, self.target)
        targets = states.next_target(modality, token, index)

        def step(
            module: FourM, targets: TargetTokens, memory: DecoderCache
        ) -> tuple[Float[Array, "g vocab"], DecoderCache]:
            features, memory = module.decode_step(targets, memory)
            return module.logits(features[:, 0], self.target), memory

        result: Any = self.model.apply({"params": self.params}, targets, memory, method=step)
        return result
