"""Published models at full size; suite `published` of experiments.benchmark.

Weights are random, in the published names and shapes: 4M-21 B (834 M parameters, untied heads) is
converted and run forward on 2 samples of 256 + 256 tokens, 4M-21 XL (4.5 G, float32 18 GB) is
converted, and the ViT-B tokenizer of 224-pixel images encodes and decodes batches of 4. Every case
has a process of its own, whose largest resident set it reports. Needs 40 GB of disk in TMPDIR.
"""

import concurrent.futures
import functools
import json
import multiprocessing
import pathlib
import resource
import statistics
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import trunk
from fourm_jax.contracts import InputTokens, TargetTokens, TokenBatch
from fourm_jax.convert import (
    checkpoint,
    fourm,
    fourm_config,
    names,
    safetensors_io,
    tokenizer_config,
)
from fourm_jax.modalities import registry
from fourm_jax.models import sizes
from fourm_jax.tokenizers import base

NUM_SAMPLES, NUM_TOKENS, BATCH, IMAGE_SIZE = 2, 256, 4, 224
BLOCK = 1 << 22  # random numbers, repeated through a file
VIT_B: dict[str, Any] = {
    "n_channels": 3,
    "enc_type": "vit_b_enc",
    "dec_type": "vit_b_dec",
    "codebook_size": 16_384,
    "latent_dim": 32,
    "post_mlp": True,
    "norm_latents": True,
    "image_size": IMAGE_SIZE,
}


def run() -> Iterator[dict]:
    """Yield one row per case."""
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        source, converted = str(root / "b"), str(root / "b_ours")
        apart(write_trunk, "base", source)
        yield apart(convert, "convert_b", source, converted)
        for dtype in ("float32", "bfloat16"):
            yield apart(forward, f"forward_b_{dtype}", converted, dtype)
        yield apart(forward, "forward_b_published_float32", source, "float32")
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        apart(write_trunk, "xlarge", str(root / "xl"))
        yield apart(convert, "convert_xl", str(root / "xl"), str(root / "xl_ours"))
    for dtype in ("float32", "bfloat16"):
        for direction in ("encode", "decode"):
            yield apart(vit_b, f"vit_b_{direction}_{dtype}", direction, dtype)


def apart(function: Callable, *arguments):
    """Result of `function(*arguments)` in a fresh process."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def row(case: str, **figures) -> dict:
    """One line of the suite, with the peak memory of this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"suite": "published", "case": case, **figures, "peak_rss_gb": round(peak, 2)}


def write_trunk(size: str, directory: str) -> None:
    """Write random weights of 4M-21 at one size, untied heads, as the published files are."""
    config: dict[str, Any] = {
        "domains_in": list(registry.MOD21_IN),
        "domains_out": list(registry.MOD21_OUT),
        **sizes.get(size),
    }
    config |= {"gated_mlp": True, "act_layer": "SiLU", **dict.fromkeys(fourm_config.BIASES, False)}
    entries = list(names.entries(fourm_config.to_model(config)))
    block = np.random.default_rng(0).normal(scale=0.02, size=BLOCK).astype(np.float32)

    def tensors() -> Iterator[tuple[str, np.ndarray]]:
        for entry in entries:
            first = zlib.crc32(f"{entry.path}{entry.index}".encode()) % len(block)
            if entry.kind == "buffer":
                yield entry.name, np.broadcast_to(np.float32(entry.value), entry.shape)
            else:
                yield entry.name, np.resize(block[first:], entry.shape)  # aliases alone are equal

    path = pathlib.Path(directory)
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    announced = {entry.name: (np.dtype(np.float32), entry.shape) for entry in entries}
    safetensors_io.write(path / "model.safetensors", announced, tensors())


def convert(case: str, source: str, output: str) -> dict:
    """Time `experiments.convert_checkpoint` without its command line."""
    start = time.perf_counter()
    report = checkpoint.convert(source, output)
    seconds = time.perf_counter() - start
    size = (pathlib.Path(source) / "model.safetensors").stat().st_size
    figures = {"file_gb": round(size / 1e9, 2), "seconds": round(seconds, 1)}
    return row(case, **figures, tensors=len(report.used) + len(report.derived))


def forward(case: str, source: str, dtype: str) -> dict:
    """Load a trunk and time the loss of 2 samples."""
    start = time.perf_counter()
    loaded = checkpoint.load(source)
    assert isinstance(loaded, checkpoint.Trunk)
    model = loaded.model.clone(dtype=jnp.dtype(dtype))
    load_s = time.perf_counter() - start

    def run(params: Any, tokens: TokenBatch) -> jax.Array:
        features: Any = model.apply({"params": params}, tokens)
        return features.astype("float32")

    step = jax.jit(run)
    features, seconds = timed(functools.partial(step, loaded.params, random_tokens(model)))
    if not bool(jnp.isfinite(features).all()):
        raise ValueError(f"{case}: features are not finite")
    count = sum(leaf.size for leaf in jax.tree.leaves(loaded.params))
    figures = {"parameters_m": round(count / 1e6, 1), "load_s": round(load_s, 1)}
    return row(case, **figures, seconds_per_forward=round(seconds, 2))


def vit_b(case: str, direction: str, dtype: str) -> dict:
    """Time the ViT-B tokenizer on batches of 4, beside a float32 product of this process."""
    family, arguments = tokenizer_config.arguments_of(VIT_B)
    for side in ("encoder", "decoder"):
        arguments[side]["dtype"] = dtype
    module, rng = base.build(family, arguments), np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(BATCH, IMAGE_SIZE, IMAGE_SIZE, 3)), jnp.float32)
    variables = jax.jit(module.init)(jax.random.key(0), images)
    ids = jnp.asarray(rng.integers(0, VIT_B["codebook_size"], (BATCH, *module.grid)))
    value = images if direction == "encode" else ids
    step = jax.jit(functools.partial(module.apply, method=direction))
    _, seconds = timed(functools.partial(step, variables, value), rounds=9)
    figures = {"images_per_s": round(BATCH / seconds, 2)}
    return row(case, **figures, sgemm_gflops=round(trunk.sgemm(), 1))


def random_tokens(model) -> TokenBatch:
    """Two samples of 256 visible and 256 target tokens, spread over the grid modalities."""
    example, rng = fourm.example_tokens(model), np.random.default_rng(0)
    shape = (NUM_SAMPLES, NUM_TOKENS)
    grids = [i for i, spec in enumerate(model.modalities) if spec.kind == "grid"]
    modality = jnp.asarray(rng.choice(grids, shape))
    ids, places = jnp.asarray(rng.integers(0, 196, (2, *shape)))
    valid = jnp.ones(shape, bool)
    pixels = {k: jnp.repeat(v, NUM_SAMPLES, 0) for k, v in example.pixels.items()}
    embeddings = {k: jnp.repeat(v, NUM_SAMPLES, 0) for k, v in example.embeddings.items()}
    return TokenBatch(
        inputs=InputTokens(modality, places, ids, valid),
        targets=TargetTokens(modality, places, ids, ids, valid, jnp.zeros_like(places)),
        pixels=pixels,
        embeddings=embeddings,
    )


def timed(step: Callable[[], jax.Array], rounds: int = 3) -> tuple[jax.Array, float]:
    """Result of `step` and its median seconds after compilation."""
    result = jax.block_until_ready(step())
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        jax.block_until_ready(step())
        seconds.append(time.perf_counter() - start)
    return result, statistics.median(seconds)
