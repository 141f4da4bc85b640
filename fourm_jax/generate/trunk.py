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
from fourm_jax.generate.next_tokens import Ranges
from fourm_jax.models import fourm, layers, tables, transformer
from fourm_jax.models.fourm import DecoderCache, FourM
from fourm_jax.utils import hardware, memory_views

HEAD = "head_rows"  # see `with_head_rows`
FEW_SAMPLES = 4  # of which a pass takes joined products (`layers.FEW_ROWS`), or nearly


def looped_on_tpu(model: FourM, platform: str) -> FourM:
    """The model, on a TPU with its blocks in a loop where it has no other number (`scan_unroll` 0).

    Without gradients little is stacked, and a TPU's compiler would take some ten times as long.
    """
    if platform != "tpu" or model.scan_unroll:
        return model
    return dataclasses.replace(model, scan_unroll=1)


def with_ready_kernels(model: FourM, params: Any, num_samples: int) -> Any:
    """The parameters with the kernels of all blocks as passes read them: in the dtype of the
    computation; on a GPU, for more than few samples, cut by sets of heads; on a CPU with every
    layer by itself, too (`transformer.cut_layers`).

    Every pass casts and cuts them otherwise; the results are the same. Those that are cast, and cut
    if they are to be, stay as they are.
    """
    params = _with_cast_kernels(model, params, num_samples)
    stacks = {name: params[name] for name in ("encoder", "decoder")}
    is_ready = all(transformer.LAYERS in stack for stack in stacks.values())
    if hardware.platform() != "cpu" or is_ready:
        return params
    if not all(map(memory_views.may_share, jax.tree.leaves(stacks))):
        return params
    return {**params, **{name: transformer.cut_layers(stack) for name, stack in stacks.items()}}


def _with_cast_kernels(model: FourM, params: Any, num_samples: int) -> Any:
    dtype, is_cut = jnp.dtype(model.dtype), _is_cut(num_samples)
    if dtype == jnp.float32:
        return params
    stacks = {name: params[name] for name in ("encoder", "decoder")}
    kernels = [leaf for leaf in jax.tree.leaves(stacks) if leaf.ndim > 2]
    to_cast = any(leaf.dtype != dtype for leaf in kernels)
    to_cut = is_cut and any(leaf.ndim == 5 for leaf in kernels)
    return {**params, **_cast(stacks, dtype, is_cut)} if to_cast or to_cut else params


def _is_cut(num_samples: int) -> bool:
    return hardware.platform() == "gpu" and num_samples > FEW_SAMPLES


class ReadyKernels:
    """Parameters `with_ready_kernels` that are kept from call to call, the last ones asked for."""

    def __init__(self) -> None:
        self._kept: tuple[Any, bool, Any] | None = None  # one object, as threads may ask at once

    def of(self, model: FourM, params: Any, num_samples: int) -> Any:
        """`with_ready_kernels` of these, which are told by the object that `params` is."""
        kept, is_cut = self._kept, _is_cut(num_samples)
        if kept is None or kept[0] is not params or kept[1] != is_cut:
            kept = self._kept = None  # gives up the memory before the next ones
            kept = self._kept = params, is_cut, with_ready_kernels(model, params, num_samples)
        return kept[2]


def with_head_rows(model: FourM, params: Any, target: str, drawable: Ranges) -> Any:
    """The parameters and, on a CPU, the rows of a text's head that a decoder reads: they lie where
    the table has them, as every text would copy them otherwise.

    Args:
      drawable: see `TrunkSequenceDecoder`.
    """
    table = params["decoder_embedding"]["tokens" if model.tie_heads else "heads"]
    is_cast = table.dtype != jnp.dtype(model.dtype)
    if hardware.platform() != "cpu" or is_cast or not memory_views.may_share(table):
        return params
    offsets = tables.token_layout(model.modalities, model.outputs).offsets
    offset = offsets[states.index_of(model.modalities, target)]
    parts = (slice(offset + start, offset + stop) for start, stop in drawable)
    return {**params, HEAD: tuple(memory_views.part(table, part) for part in parts)}


@functools.partial(jax.jit, static_argnames=("dtype", "is_cut"))
def _cast(stacks: Any, dtype: jnp.dtype, is_cut: bool) -> Any:
    # As `transformer.Stack` does: [l, d] are scales and biases.
    cast = jax.tree.map(lambda leaf: leaf.astype(dtype) if leaf.ndim > 2 else leaf, stacks)
    return layers.cut_heads(cast) if is_cut else cast


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
      head: rows of the target's head that are multiplied with, one part after the other.
    """

    cache: DecoderCache
    head: tuple[Float[Array, "_rows d"], ...]


@dataclasses.dataclass(frozen=True)
class TrunkSequenceDecoder:
    """`sequences.SequenceDecoder` that keeps keys and values between steps.

    Attributes:
      drawable: ids whose logits are wanted (`next_tokens.drawable`); those of the others are 0, and
        their rows of the head, up to half of what a token of a small model reads, are not read.
    """

    model: FourM
    params: Any
    target: str
    drawable: Ranges

    def start(self, tokens: TokenBatch, num_steps: int) -> SequenceMemory:
        """Encode once; the memory has room for `num_steps` tokens."""

        def start(module: FourM, tokens: TokenBatch) -> SequenceMemory:
            cache = module.start_cache(module.encode(tokens), num_steps)
            if HEAD in self.params:
                return SequenceMemory(cache, self.params[HEAD])
            head = module.head(self.target)
            rows = [head[start:stop] for start, stop in self.drawable]
            return SequenceMemory(cache, (jnp.concatenate(rows),))

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
        logits = [fourm.head_logits(features[:, 0], rows) for rows in memory.head]
        return self._in_places(jnp.concatenate(logits, axis=1)), memory.replace(cache=cache)

    def _in_places(self, logits: Float[Array, "g rows"]) -> Float[Array, "g vocab"]:
        """Logits of the drawable ids in the places of the ids."""
        spec = self.model.modalities[states.index_of(self.model.modalities, self.target)]
        parts, end, num_taken = [], 0, 0
        for start, stop in self.drawable:
            parts.append(jnp.zeros((len(logits), start - end), logits.dtype))
            parts.append(logits[:, num_taken : num_taken + stop - start])
            num_taken, end = num_taken + stop - start, stop
        parts.append(jnp.zeros((len(logits), spec.vocab_size - end), logits.dtype))
        return jnp.concatenate(parts, axis=1)
