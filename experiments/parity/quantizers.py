"""quantizers/: one training step of every quantizer, Memcodes in evaluation, and k-means."""

import json
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments.parity import quantity as quantities
from experiments.parity.quantity import CLOSE, Quantity, Recorded
from experiments.parity.recorded import below
from fourm_jax.models import quantizers
from fourm_jax.ops import kmeans, quantize

Arrays = Mapping[str, np.ndarray]
FILES = ("meta.json", "inputs.safetensors", "outputs.safetensors")
STATE = {"codes": "embed", "cluster_size": "cluster_size", "code_sums": "embed_avg"}
MEMCODES = {"codes": "codes", "to_keys": "to_k.weight", "to_values": "to_v.weight"}
EMA_ARGUMENTS = {
    "dim",
    "codebook_size",
    "codebook_dim",
    "heads",
    "decay",
    "commitment_weight",
    "use_cosine_sim",
    "norm_latents",
    "threshold_ema_dead_code",
    "code_replacement_policy",
}


def cases(folder: pathlib.Path) -> Iterator[tuple[str, Iterator[Quantity]]]:
    """One case per tag."""
    for path in sorted(folder.iterdir()):
        if path.name not in FILES:
            yield path.name, quantities.unknown(["(file)"])
    meta = json.loads((folder / "meta.json").read_text())
    inputs, outputs = (quantities.load(folder / f"{n}.safetensors") for n in ("inputs", "outputs"))
    tags = {name.split("/")[0] for name in (*inputs, *outputs)} | set(meta)
    for tag in sorted(tags):
        yield tag, check(meta.get(tag), below(inputs, tag), Recorded(below(outputs, tag)), tag)


def check(
    made: Mapping[str, Any] | None, inputs: Arrays, outputs: Recorded, tag: str
) -> Iterator[Quantity]:
    """One case: `made` are the constructor's arguments, None for k-means."""
    if made is None and "samples" in inputs:
        yield from clusters(inputs, outputs, "cosine" if "cosine" in tag else "euclidean")
    elif made is not None and "use_cosine_sim" in made and set(made) <= EMA_ARGUMENTS:
        yield from training_step(made, inputs, outputs)
    elif made is not None and set(made) == {"dim", "codebook_size", "heads"}:
        yield from memcodes(made, inputs, outputs)
    yield from outputs.unread()


def codebook_step(
    module: nn.Module,
    book: Mapping[str, Any],
    latents: np.ndarray,
    loss: Callable[[quantizers.Quantized], jax.Array] = lambda out: out.loss,
) -> tuple[jax.Array, quantizers.Quantized, Mapping[str, jax.Array]]:
    """(gradient of `loss`, Quantized, new codebook) of one training step."""

    def loss_of(latents: jax.Array) -> tuple[jax.Array, tuple[quantizers.Quantized, Any]]:
        out, state = module.apply(
            {"codebook": book},
            latents,
            train=True,
            mutable=["codebook"],
            rngs={"quantizer": jax.random.key(0)},
        )
        return loss(out), (out, state["codebook"])

    gradient, (out, book) = jax.jit(jax.grad(loss_of, has_aux=True))(latents)
    return gradient, out, book


def training_step(made: Mapping[str, Any], inputs: Arrays, outputs: Recorded) -> Iterator[Quantity]:
    """Values, ids, loss, gradient and codebook after one step with moving averages."""
    heads, threshold = made.get("heads", 1), made["threshold_ema_dead_code"]
    latents = _channels_last(inputs["x"])
    policy = made.get("code_replacement_policy", "batch_random")
    dim = made.get("codebook_dim", made["dim"])
    share = latents.size * heads / made["dim"] / made["codebook_size"]
    module = quantizers.EMACodebook(
        num_codes=made["codebook_size"],
        latent_dim=made["dim"],
        num_heads=heads,
        metric="cosine" if made["use_cosine_sim"] else "euclidean",
        decay=made["decay"],
        commitment_weight=made["commitment_weight"],
        normalize_latents=made.get("norm_latents", False),
        dead_code_coefficient=share / threshold if threshold else 0.0,
        dead_code_policy=policy,
        as_published=True,
    )
    names = {ours: name for ours, name in STATE.items() if f"{name}_before" in inputs}
    book = {ours: inputs[f"{name}_before"] for ours, name in names.items()}
    weights = _channels_last(inputs["grad_output"])
    gradient, out, updated = codebook_step(
        module,
        {**book, "initialized": jnp.asarray(True)},
        latents,
        lambda out: jnp.sum(out.values * weights) + out.loss,
    )
    yield Quantity("indices", out.ids, _ids(outputs["indices"]))
    yield Quantity("quantize", out.values, _channels_last(outputs["quantize"]), CLOSE)
    yield Quantity("loss", np.reshape(out.loss, 1), outputs["loss"], CLOSE)
    yield Quantity("x_grad", gradient, _channels_last(outputs["x_grad"]), CLOSE)
    dead = np.zeros(made["codebook_size"], bool)
    if threshold and policy == "batch_random":
        # Random there and here: any latent of the batch, of unit length for cosine codebooks.
        dead = outputs["cluster_size_after"] < threshold
        rows = jnp.asarray(latents.reshape(-1, dim))
        rows = quantize.l2_normalize(rows) if made["use_cosine_sim"] else rows
        distances = [
            np.abs(np.asarray(rows) - code).max(axis=1).min()
            for code in np.asarray(updated["codes"])[dead]
        ]
        yield Quantity("embed_after (replaced codes)", distances, [0.0] * len(distances), CLOSE)
    for ours, name in names.items():
        keep = ~dead if ours == "codes" else slice(None)
        after, recorded = np.asarray(updated[ours]), outputs[f"{name}_after"]
        yield Quantity(f"{name}_after", after[keep], recorded[keep], CLOSE)


def memcodes(made: Mapping[str, Any], inputs: Arrays, outputs: Recorded) -> Iterator[Quantity]:
    """Evaluation: ids, their values, and values looked up by id."""
    module = quantizers.Memcodes(
        num_codes=made["codebook_size"], latent_dim=made["dim"], num_heads=made["heads"]
    )
    params = {"params": {ours: inputs[theirs] for ours, theirs in MEMCODES.items()}}
    out: Any = module.apply(params, _channels_last(inputs["x"]))
    yield Quantity("eval_indices", out.ids, _ids(outputs["eval_indices"]))
    yield Quantity("eval_quantize", out.values, _channels_last(outputs["eval_quantize"]), CLOSE)
    if "indices_to_embedding" in outputs:
        ids = jnp.asarray(_ids(outputs["eval_indices"]))
        found = module.apply(params, ids, method="lookup")
        expected = _channels_last(outputs["indices_to_embedding"])
        yield Quantity("indices_to_embedding", found, expected, CLOSE)


def clusters(inputs: Arrays, outputs: Recorded, metric: quantize.Metric) -> Iterator[Quantity]:
    """Ten iterations of k-means that start from the first samples."""
    samples = jnp.asarray(inputs["samples"])
    means, sizes = kmeans.kmeans(samples, samples[: len(outputs["means"])], metric=metric)
    yield Quantity("means", means, outputs["means"], CLOSE)
    yield Quantity("bins", sizes.astype(jnp.int32), outputs["bins"])


def _channels_last(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(x, 1, -1)


def _ids(ids: np.ndarray) -> np.ndarray:
    return ids[..., None] if ids.ndim == 3 else _channels_last(ids)
