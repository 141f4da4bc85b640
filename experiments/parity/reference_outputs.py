"""States, losses and gradients of a forward and backward pass, under their published names."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fourm_jax.contracts import TargetTokens, TokenBatch
from fourm_jax.convert import fourm as fourm_checkpoint
from fourm_jax.models.fourm import FourM
from fourm_jax.ops import losses


def forward(model: FourM, params: Mapping[str, Any], tokens: TokenBatch) -> dict[str, Array]:
    """Hidden states [b, slots, d] and, per output, logits of *all* target slots.

    Keys: encoder_tokens, encoder_emb (registers first), encoder_out, context, decoder_tokens,
    decoder_emb, decoder_out, logits/<modality>. Slots that are not valid mean nothing.
    """

    def run(module: FourM, tokens: TokenBatch) -> dict[str, Array]:
        content, position_vectors = module.embed_inputs(tokens)
        encoded = module.encode(tokens)
        target_content, target_position_vectors = module.embed_targets(tokens.targets)
        decoded = module.decode(encoded, tokens.targets)
        logits = {f"logits/{name}": module.logits(decoded, name) for name in module.outputs}
        if module.num_registers:
            count = module.num_registers
            registers = jnp.broadcast_to(module.registers, (len(content), count, module.dim))
            content = jnp.concatenate([registers, content], axis=1)
            position_vectors = jnp.pad(position_vectors, ((0, 0), (count, 0), (0, 0)))
        return {
            "encoder_tokens": content,
            "encoder_emb": position_vectors,
            "encoder_out": encoded.hidden[:, : content.shape[1]],
            "context": encoded.context[:, : content.shape[1]],
            "decoder_tokens": target_content,
            "decoder_emb": target_position_vectors,
            "decoder_out": decoded,
            **logits,
        }

    states: Any = model.apply({"params": params}, tokens, method=run)
    return states


def losses_and_gradients(
    model: FourM, params: Mapping[str, Any], tokens: TokenBatch, num_outputs: int | None = None
) -> tuple[dict[str, Array], dict[str, dict[str, np.ndarray]]]:
    """Return (losses, gradients) in the published normalization (docs/published.md#losses).

    Losses: "loss_mod" (sum of the modality means over *all* target modalities), "loss_token"
    (tokens weighted by their vocabulary size) and the mean of each modality, "loss_mod/<name>".
    Gradients: {"mod": {published parameter name: array}, "token": {…}}.

    Args:
      num_outputs: target modalities that the batch has, with or without target tokens; default:
        all of the model.
    """

    def published(loss: Float[Array, "b m"], targets: TargetTokens) -> dict[str, Array]:
        """The losses that the losses by token add up to; each is linear in them."""
        of_batch = (loss, targets.modality, targets.valid, len(model.modalities))
        sums, counts = losses.modality_losses(*of_batch)
        means = sums / jnp.maximum(counts, 1)
        return {
            "loss_mod": losses.mod_loss(*of_batch, divisor=num_outputs or len(model.outputs)),
            "loss_token": losses.token_loss(*of_batch, weights=[s.vocab_size for s in specs]),
            **{f"loss_mod/{specs[i].name}": means[i] for i in outputs},
        }

    def weighted(
        params: Mapping[str, Any], tokens: TokenBatch, kind: str
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        weights = jax.grad(lambda loss: published(loss, tokens.targets)[f"loss_{kind}"])(
            jnp.zeros(tokens.targets.id.shape)
        )
        predicted: Any = model.apply(
            {"params": params}, tokens, False, weights, method="token_losses"
        )
        return predicted.total, published(predicted.loss, tokens.targets)

    specs = model.modalities
    outputs = [i for i, spec in enumerate(specs) if spec.name in model.outputs]
    step = jax.jit(jax.grad(weighted, has_aux=True), static_argnums=2)
    gradients: dict[str, dict[str, np.ndarray]] = {}
    values: dict[str, Array] = {}
    for kind in ("mod", "token"):
        gradient, values = step(params, tokens, kind)
        gradients[kind] = dict(fourm_checkpoint.published_tensors(model, gradient))
    return values, gradients
