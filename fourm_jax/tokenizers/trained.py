"""A trained tokenizer on NumPy arrays: checks at the border, equal blocks, all local devices."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Float, Int, Num

from fourm_jax.parallel import mesh, sharding
from fourm_jax.tokenizers import card as card_lib
from fourm_jax.tokenizers.signal import Signal

HOST_BATCH = 256  # largest batch that is put on one device at once
METHODS = ("encode", "decode", "codes", "decode_probabilities")


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedTokenizer:
    """A tokenizer ready for use on NumPy arrays, with checks at the border."""

    module: nn.Module
    variables: Mapping[str, Any]
    card: card_lib.Card

    @property
    def signal(self) -> Signal:
        """What the raw signal looks like."""
        return self.module.signal

    def encode(self, raw: Num[np.ndarray, "b ..."]) -> Int[np.ndarray, "b ..."]:
        """Return int32 ids of a raw batch of any size.

        Raises:
          ValueError: dtype, shape or range are not the signal's.
        """
        self.check(raw)
        return self._apply("encode", self.signal.from_stored(raw))

    def check(self, raw: Num[np.ndarray, "b ..."]) -> None:
        """Raise ValueError unless `encode` takes this batch; computes nothing."""
        who = f"tokenizer {self.card.name!r}"
        self.signal.check(self.signal.from_stored(raw), who, self.module.patch_size)

    def ids_shape(self, raw_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the ids of one sample of this shape; computes nothing."""
        raw = jax.ShapeDtypeStruct((1, *raw_shape), self.module.signal.dtype)
        encode = functools.partial(self.module.apply, method="encode")
        return jax.eval_shape(encode, self.variables, raw).shape[1:]

    def decode(self, ids: Int[np.ndarray, "b ..."]) -> Num[np.ndarray, "b ..."]:
        """Return the raw batch of ids.

        Raises:
          ValueError: not integers, empty, of wrong rank, or outside the vocabulary.
        """
        return self._apply("decode", self._checked(ids))

    def codes(self, ids: Int[np.ndarray, "b ..."]) -> Float[np.ndarray, "b ... l"]:
        """Return the code vectors of ids, float32 [b, y, x, latent], or [b, latent] for vectors.

        Raises:
          ValueError: as `decode`.
        """
        return self._apply("codes", self._checked(ids))

    def _checked(self, ids: Int[np.ndarray, "b ..."]) -> Int[np.ndarray, "b ..."]:
        ids, vocab_size = np.asarray(ids), self.card.vocab_size
        self._check_rank(ids, "ids", 0)
        if ids.dtype.kind not in "iu" or not 0 <= ids.min() <= ids.max() < vocab_size:
            raise ValueError(
                f"tokenizer {self.card.name!r}: ids must be integers in 0 … {vocab_size - 1}; "
                f"got {ids.dtype} in {ids.min()} … {ids.max()}"
            )
        return ids.astype(np.int32)

    def decode_probabilities(self, probabilities: np.ndarray) -> Num[np.ndarray, "b ..."]:
        """Decode probability-weighted codes, [*ids.shape, vocabulary]."""
        probabilities = np.asarray(probabilities, np.float32)
        self._check_rank(probabilities, "probabilities", 1)
        if probabilities.shape[-1] != self.card.vocab_size:
            raise ValueError(
                f"tokenizer {self.card.name!r}: probabilities over {probabilities.shape[-1]} "
                f"codes, the vocabulary has {self.card.vocab_size}"
            )
        return self._apply("decode_probabilities", probabilities)

    def _check_rank(self, array: np.ndarray, what: str, extra: int) -> None:
        axes = ["b", "y", "x"] if self.module.signal.is_image else ["b"]
        if self.card.codes_per_position > 1 or len(axes) == 1:
            axes.append(str(self.card.codes_per_position))
        if array.ndim != len(axes) + extra or not array.size:
            raise ValueError(
                f"tokenizer {self.card.name!r}: {what} of shape {array.shape}, expected "
                f"[{', '.join(axes + ['vocabulary'] * extra)}]"
            )

    def _apply(self, method: str, batch: np.ndarray) -> np.ndarray:
        """Run in equal blocks, the last one padded, so that one shape compiles.

        What does not fit one block is spread over all local devices, a block each. A device then
        computes what it would compute alone, so results do not depend on how many there are.
        """
        size, run = min(len(batch), HOST_BATCH), self._jitted[method]
        if len(batch) > HOST_BATCH and self._mesh.size > 1:
            size, run = HOST_BATCH * self._mesh.size, self._spread[method]
        blocks = []
        for start in range(0, len(batch), size):
            block = batch[start : start + size]
            padded = np.concatenate([block, np.repeat(block[-1:], size - len(block), axis=0)])
            blocks.append(np.asarray(run(padded))[: len(block)])
        return np.concatenate(blocks)

    @functools.cached_property
    def _jitted(self) -> Mapping[str, Callable]:
        """Methods on one device."""

        def compiled(name):
            function = jax.jit(functools.partial(self.module.apply, method=name))
            return functools.partial(function, self.variables)

        return {name: compiled(name) for name in METHODS}

    @functools.cached_property
    def _spread(self) -> Mapping[str, Callable]:
        """Methods on batches that are cut over all local devices."""
        variables = jax.device_put(self.variables, NamedSharding(self._mesh, P()))

        def compiled(name):
            cut = jax.shard_map(
                functools.partial(self.module.apply, method=name),
                mesh=self._mesh,
                in_specs=(P(), P(sharding.BATCH)),
                out_specs=P(sharding.BATCH),
                check_vma=False,  # each device works alone; scans start from plain constants
            )
            return functools.partial(jax.jit(cut), variables)

        return {name: compiled(name) for name in METHODS}

    @functools.cached_property
    def _mesh(self) -> Mesh:
        return mesh.make_mesh(devices=jax.local_devices())
