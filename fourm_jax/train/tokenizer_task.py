"""Training task of a tokenizer: reconstruct raw signals, update the codebook on the way."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from fourm_jax.models import parts
from fourm_jax.train import step

_MAKES_IDS = ("encoder/", "to_latent/", "quantizer/", "codebook/")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizerTask:
    """Train one module of `fourm_jax.tokenizers` (its contract is in `tokenizers.base`).

    Attributes:
      module: the tokenizer.
      source_field: of the batch that it reads, [b, ...] in its natural range.
    """

    module: nn.Module
    source_field: str

    labels: tuple[str, ...] = ()
    flops_per_sample: None = None  # not counted for tokenizers
    packed: parts.Packed = dataclasses.field(default_factory=dict)  # none
    function: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # none

    def never_learns(self, part: str) -> bool:
        """Whether a part stays as it is, whatever a config says: what makes the ids does where only
        a decoder is trained. It has no gradient, but weight decay would change it and so the ids.
        """
        only_decoder = getattr(self.module, "freeze_encoder", False)
        return only_decoder and part.startswith(_MAKES_IDS)

    @property
    def taken(self) -> Callable[[np.ndarray], np.ndarray]:
        """What makes of a raw value, as it is stored, what the module takes, in training as in
        `encode`; ValueError where it is not of its signal. It can be sent to other processes."""
        return functools.partial(
            self.module.signal.taken,
            who=f"tokenizer of {self.source_field!r}",
            patch_size=self.module.patch_size,
        )

    def init(self, key: Key[Array, ""], batch: Any) -> tuple[Any, Any]:
        """Initialize parameters and codebook."""
        variables = dict(self.module.init(key, batch[self.source_field]))
        return variables.pop("params"), variables

    def loss(
        self, params: Any, model_state: Any, batch: Any, key: Key[Array, ""], train: bool
    ) -> tuple[Float[Array, ""], step.Aux]:
        """Loss of the global batch, metrics of the tokenizer, updated codebook."""
        output, model_state = self.module.apply(
            {"params": params, **model_state},
            batch[self.source_field],
            train,
            rngs={"quantizer": key},
            mutable=list(model_state),
        )
        values = {"loss": output.loss, **output.metrics}
        one = jnp.float32(1)
        means = {name: (value.astype(jnp.float32), one) for name, value in values.items()}
        return output.loss, step.Aux(means, dict(model_state))

    def variables(self, params: Any, model_state: Any) -> dict[str, Any]:
        """Variables of the module, as `tokenizers.base.save` takes them."""
        return {"params": params, **model_state}
