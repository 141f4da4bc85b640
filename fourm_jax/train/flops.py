"""Operations of a training step, counted by hand, and what the device could do in that time.

The compiler's own count takes a scanned block once, so it cannot serve for utilization.
"""

import jax

from fourm_jax.models import fourm, layers

# Peak dense bfloat16 operations per second and chip, as the makers state them.
PEAK_FLOPS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
}


def peak_flops(device: jax.Device) -> float | None:
    """Peak of `device`, None when it is not known (any CPU)."""
    kind = device.device_kind
    names = [name for name in PEAK_FLOPS if kind.startswith(name)]
    return PEAK_FLOPS[max(names, key=len)] if names else None


def training_flops(model: fourm.FourM, num_inputs: int, num_targets: int) -> float:
    """Operations of one sample, forward and backward (twice the forward pass).

    Two per multiply-add of trunk, context projection and each target's own head (the mean
    vocabulary of the outputs); full slots; no recomputation; lookups are free.
    """
    n, m, dim = num_inputs + model.num_registers, num_targets, model.dim
    hidden = model.mlp_dim or layers.hidden_dim(dim, model.mlp)
    mlp = (2 + layers.MLPS[model.mlp][1]) * dim * hidden
    encoder = n * (4 * dim**2 + mlp) + 2 * n * n * dim
    decoder_self = m * (4 * dim**2 + mlp) + 2 * m * m * dim
    decoder_cross = 2 * m * dim**2 + 2 * n * dim**2 + 2 * m * n * dim
    sizes = [spec.vocab_size for spec in model.modalities if spec.name in model.outputs]
    heads = m * dim * sum(sizes) / len(sizes)
    forward = (
        model.encoder_depth * encoder
        + model.decoder_depth * (decoder_self + decoder_cross)
        + n * dim**2
        + heads
    )
    return 3 * 2 * forward
