"""Training task of the trunk: mask on the device, predict, and count what was really there."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int, Key

from fourm_jax.contracts import Batch, TokenBatch
from fourm_jax.masking import mixture
from fourm_jax.masking import sample as masking
from fourm_jax.models import fourm, parts, weights
from fourm_jax.ops import losses
from fourm_jax.parallel import sharding
from fourm_jax.train import accumulation, flops, metrics, step
from fourm_jax.utils import errors

LOSSES = ("mod", "token")
# Traced once per shape for whatever asks for it: shapes, initialization, step. XLA sees no call.
_sample_tokens = jax.jit(
    masking.sample_tokens,
    static_argnames=("specs", "inputs", "outputs", "num_inputs", "num_targets", "budget"),
    inline=True,
)
USUAL_SLOTS = 1_024  # more are refused where no record can fill half of them


@dataclasses.dataclass(frozen=True, kw_only=True)
class FourMTask:
    """Masked multimodal prediction (docs/published.md#masking, docs/published.md#losses).

    Attributes:
      model: the trunk; its `modalities` are the indices in a TokenBatch.
      mixture: masking parameters per data set.
      num_inputs, num_targets: token slots per sample.
      budget: "fill" gives unused budget to others, "reference" loses it as the published code does.
      maskings_per_record: samples drawn from each loaded record; the batch has that many times
        fewer records.
      loss_name: "mod" (mean over modalities) or "token" (mean over tokens).
      loss_weights: factor on the losses of a modality's tokens; 1 for those that are not named.
      z_loss: weight of the squared log-sums of the heads in the loss of training, as it is logged;
        held-out losses are without.
      accumulate_steps: parts that a batch is computed in, one after the other, to save memory.
    """

    model: fourm.FourM
    mixture: mixture.Mixture
    num_inputs: int
    num_targets: int
    budget: Literal["fill", "reference"] = "fill"
    maskings_per_record: int = 1
    loss_name: Literal["mod", "token"] = "mod"
    loss_weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    z_loss: float = 0.0
    accumulate_steps: int = 1

    def __post_init__(self) -> None:
        if self.loss_name not in LOSSES:
            raise ValueError(errors.unknown_value("loss", self.loss_name, LOSSES))
        if self.budget not in masking.BUDGETS:
            raise ValueError(errors.unknown_value("masking.budget", self.budget, masking.BUDGETS))
        for name, weight in self.loss_weights.items():
            if name not in self.model.outputs:
                allowed = self.model.outputs
                raise ValueError(errors.unknown_value("modality in loss_weights", name, allowed))
            if weight < 0:
                raise ValueError(f"loss_weights.{name} {weight}, must be at least 0")
        if self.z_loss < 0:
            raise ValueError(f"z_loss {self.z_loss}, must be at least 0")
        for field in ("num_inputs", "num_targets", "maskings_per_record"):
            if getattr(self, field) < 1:
                raise ValueError(f"masking.{field} {getattr(self, field)}, must be at least 1")
        self._check_slots("num_inputs", self.model.inputs)
        self._check_slots("num_targets", self.model.outputs)

    def _check_slots(self, field: str, names: Sequence[str]) -> None:
        """Refuses slots that no record can fill: they cost time and memory and hold nothing."""
        sizes = {spec.name: spec.num_tokens for spec in self.model.modalities}
        longest, slots = sum(sizes[name] for name in names), getattr(self, field)
        allowed = max(2 * longest, USUAL_SLOTS)
        if slots > allowed:
            raise ValueError(
                f"masking.{field} {slots}: a record has at most {longest} tokens of these "
                f"modalities, allowed: 1 to {allowed}"
            )

    @property
    def labels(self) -> tuple[str, ...]:
        """Modality names, in the order of the vector metrics."""
        return tuple(spec.name for spec in self.model.modalities)

    @property
    def flops_per_sample(self) -> float:
        """Floating-point operations of forward and backward pass (see `train.flops`)."""
        return flops.training_flops(self.model, self.num_inputs, self.num_targets)

    @property
    def packed(self) -> parts.Packed:
        """Tables of the trunk."""
        return parts.packed_tables(self.model)

    @property
    def function(self) -> Mapping[str, Any]:
        """Settings of the trunk that no shape tells."""
        return weights.function_of(self.model)

    def never_learns(self, part: str) -> bool:
        """Whether a part stays as it is, whatever a config says: all learn."""
        return False

    def init(self, key: Key[Array, ""], batch: Batch) -> tuple[Any, Any]:
        """Initialize the trunk; it has no other state.

        Parameters depend on shapes only, so the compiler need not see the masking once more.
        """
        shapes = jax.eval_shape(self.sample, key, batch)
        tokens = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        variables = self.model.init(key, tokens, method="token_losses")
        return variables["params"], {}

    def sample(self, key: Key[Array, ""], batch: Batch) -> TokenBatch:
        """Draw the masks: [records] -> [records × maskings_per_record] samples."""
        tokens = _sample_tokens(
            key,
            masking.repeat(batch, self.maskings_per_record),
            self.mixture,
            specs=self.model.modalities,
            inputs=self.model.inputs,
            outputs=self.model.outputs,
            num_inputs=self.num_inputs,
            num_targets=self.num_targets,
            budget=self.budget,
        )
        return jax.tree.map(lambda x: sharding.constrain(x, P(sharding.BATCH)), tokens)

    def loss(
        self, params: Any, model_state: Any, batch: Batch, key: Key[Array, ""], train: bool
    ) -> tuple[Float[Array, ""], step.Aux]:
        """Loss of the global batch; metrics by modality and how full the slots are."""
        mask_key, drop_key = jax.random.split(key)
        tokens = self.sample(mask_key, batch)
        targets = tokens.targets
        slots = (targets.modality, targets.valid, len(self.model.modalities))
        # The loss is linear in the token losses, and the counts in it are those of all samples.
        weights = jax.grad(lambda loss: self._mean_loss(loss, *slots))(
            jnp.zeros(targets.valid.shape)
        )
        compute = self._in_parts if self.accumulate_steps > 1 else self._token_losses
        predicted = compute(params, tokens, weights, drop_key, train)
        value = predicted.total
        sums, counts = losses.modality_losses(predicted.loss, *slots)
        hits, _ = losses.modality_losses(predicted.correct.astype(jnp.float32), *slots)
        samples = jnp.float32(targets.valid.shape[0])
        inputs = tokens.inputs
        seen = jax.nn.one_hot(inputs.modality, len(counts)) * inputs.valid[..., None]
        aux = {
            "loss": (value, jnp.float32(1)),
            "loss/*": (sums, counts),
            "accuracy/*": (hits, counts),
            "input_tokens/*": (seen.sum((0, 1)), jnp.full_like(counts, samples)),
            "target_tokens/*": (counts, jnp.full_like(counts, samples)),
            "accuracy": (hits.sum(), counts.sum()),
            "input_fill": metrics.mean(tokens.inputs.valid),
            "target_fill": metrics.mean(targets.valid),
            "input_tokens_per_sample": (tokens.inputs.valid.sum(dtype=jnp.float32), samples),
            "target_tokens_per_sample": (counts.sum(), samples),
        }
        return value, step.Aux(aux, model_state)

    def _token_losses(
        self,
        params: Any,
        tokens: TokenBatch,
        weights: Float[Array, "b m"],
        drop_key: Key[Array, ""],
        train: bool,
    ) -> fourm.TokenLosses:
        losses: Any = self.model.apply(  # no mutable collections: the method's result alone
            {"params": params},
            tokens,
            train,
            weights,
            self.z_loss if train else 0.0,
            rngs={"drop_path": drop_key},
            method="token_losses",
        )
        return losses

    def _in_parts(
        self,
        params: Any,
        tokens: TokenBatch,
        weights: Float[Array, "b m"],
        drop_key: Key[Array, ""],
        train: bool,
    ) -> fourm.TokenLosses:
        """The same, `accumulate_steps` parts of the samples one after the other."""

        def part_loss(params, part):
            tokens, weights, keys = part
            predicted = self._token_losses(params, tokens, weights, keys[0], train)
            return predicted.total, (predicted.loss, predicted.correct)

        num_samples = len(weights)
        samples = (tokens, weights, jax.random.split(drop_key, num_samples))
        value, by_slot = accumulation.loss_of_parts(
            part_loss, self.accumulate_steps, params, samples
        )
        return fourm.TokenLosses(value, *by_slot)

    def _mean_loss(
        self,
        loss: Float[Array, "b m"],
        modality: Int[Array, "b m"],
        valid: Bool[Array, "b m"],
        num_modalities: int,
    ) -> Float[Array, ""]:
        """Normalized over the global batch; a published model keeps its published weighting."""
        published = self.model.as_published
        if self.loss_weights:
            weights = [self.loss_weights.get(spec.name, 1.0) for spec in self.model.modalities]
            loss *= jnp.asarray(weights, jnp.float32)[modality]
        if self.loss_name == "mod":
            divisor = len(self.model.outputs) if published else None
            return losses.mod_loss(loss, modality, valid, num_modalities, divisor=divisor)
        sizes = [spec.vocab_size for spec in self.model.modalities] if published else None
        return losses.token_loss(loss, modality, valid, num_modalities, weights=sizes)
