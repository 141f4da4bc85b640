"""Operations of the trunk, counted by hand, and what the device could do in that time.

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
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 NVL": 835e12,
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
    sizes = [spec.vocab_size for spec in model.modalities if spec.name in model.outputs]
    mean_size = sum(sizes) / len(sizes)
    return 3 * (
        encoder_flops(model, num_inputs)
        + memory_flops(model, num_inputs)
        + decoder_flops(model, num_inputs, num_targets, mean_size)
    )


def encoder_flops(model: fourm.FourM, num_inputs: int) -> float:
    """Forward pass of one sample through the encoder and the context projection."""
    n, dim = num_inputs + model.num_registers, model.dim
    layer = n * (4 * dim**2 + _mlp(model)) + 2 * n * n * dim
    return 2 * (model.encoder_depth * layer + n * dim**2)


def memory_flops(model: fourm.FourM, num_inputs: int) -> float:
    """Keys and values that the decoder's cross-attention makes of the inputs of one sample."""
    n, dim = num_inputs + model.num_registers, model.dim
    return 2 * model.decoder_depth * 2 * n * dim**2


def decoder_flops(
    model: fourm.FourM, num_inputs: int, num_targets: int, vocab_size: float
) -> float:
    """Forward pass of the targets of one sample through the decoder and a head."""
    n, m, dim = num_inputs + model.num_registers, num_targets, model.dim
    own = m * (4 * dim**2 + _mlp(model)) + 2 * m * m * dim
    cross = 2 * m * dim**2 + 2 * m * n * dim
    return 2 * (model.decoder_depth * (own + cross) + m * dim * vocab_size)


def _mlp(model: fourm.FourM) -> int:
    """Multiply-adds of one token in the MLP of a block."""
    hidden = model.mlp_dim or layers.hidden_dim(model.dim, model.mlp)
    return (2 + layers.MLPS[model.mlp][1]) * model.dim * hidden
