"""Published diffusion decoders <-> ours: names of the ADM UNet and of the UViT.

Source: docs/published.md#checkpoints.
"""

from collections.abc import Callable, Iterator

import flax.linen as nn
import numpy as np

from fourm_jax.convert import linking
from fourm_jax.convert.linking import Link
from fourm_jax.models.backbones import unet, uvit, vit

# published names of the parts of a residual block: ADM's, diffusers'
ADM = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "skip": "skip_connection",
}
DIFFUSERS = {
    "norm1": "norm1",
    "conv1": "conv1",
    "time": "time_emb_proj",
    "norm2": "norm2",
    "conv2": "conv2",
    "skip": "conv_shortcut",
}


def decoder_links(decoder: nn.Module) -> Iterator[Link]:
    """Links of a diffusion decoder (prefix "decoder" on both sides).

    Raises:
      ValueError: a module that is none.
    """
    if isinstance(decoder, unet.UNet):
        return _unet(decoder)
    if isinstance(decoder, uvit.UViT):
        return _uvit(decoder)
    raise ValueError(f"no published form of a {type(decoder).__name__}")


def derived_tensors(decoder: nn.Module) -> dict[str, np.ndarray]:
    """Published tensors that we compute: the position table of a UViT, [1, d, rows, columns]."""
    if not isinstance(decoder, uvit.UViT):
        return {}
    grid = (decoder.grid, decoder.grid)
    table = vit.position_table(grid, grid, decoder.dim).transpose(2, 0, 1)[None]
    return {"decoder.mid_block.mid_pos_emb": np.ascontiguousarray(table)}


def _resnet(theirs: str, ours: str, names: dict[str, str], skip: bool) -> Iterator[Link]:
    for part in ("norm1", "norm2"):
        yield from linking.norm(f"{theirs}.{names[part]}", f"{ours}/{part}/groups")
    for part in ("conv1", "conv2", *(("skip",) if skip else ())):
        yield from linking.conv(f"{theirs}.{names[part]}", f"{ours}/{part}")
    yield from linking.dense(f"{theirs}.{names['time']}", f"{ours}/time")


def _unet(decoder: unet.UNet) -> Iterator[Link]:
    theirs, ours, channels = "decoder", "params/decoder", decoder.num_channels
    for i, layer in ((0, "fc1"), (2, "fc2")):
        yield from linking.dense(f"{theirs}.time_embed.{i}", f"{ours}/time/{layer}")
    yield from _pixels_in(f"{theirs}.input_blocks.0.0", f"{ours}/down_0", decoder)
    width = decoder.multipliers[0] * decoder.dim
    skips = [width]
    for i, (kind, out, attends) in enumerate(decoder.down_path(), start=1):
        their_block, our_block = f"{theirs}.input_blocks.{i}", f"{ours}/down_{i}"
        if kind == "downsample":
            yield from linking.conv(f"{their_block}.0.op", f"{our_block}/conv")
        else:
            yield from _stage(their_block, our_block, width != out, attends)
        width = out
        skips.append(width)
    middle = f"{theirs}.middle_block"
    yield from _resnet(f"{middle}.0", f"{ours}/middle_0/resnet", ADM, False)
    yield from _attention(f"{middle}.1", f"{ours}/middle_0/attention")
    yield from _resnet(f"{middle}.2", f"{ours}/middle_1/resnet", ADM, False)
    for i, (out, attends, upsample) in enumerate(decoder.up_path()):
        their_block, our_block = f"{theirs}.output_blocks.{i}", f"{ours}/up_{i}"
        yield from _stage(their_block, our_block, width + skips.pop() != out, attends)
        if upsample:
            yield from linking.conv(
                f"{their_block}.{1 + attends}.conv", f"{our_block}/upsample/conv"
            )
        width = out
    yield from linking.norm(f"{theirs}.out.0", f"{ours}/norm/groups")
    yield Link(
        f"{ours}/pixels_out/kernel",
        (f"{theirs}.out.2.weight",),
        lambda t: linking.conv_into(linking.pixels_first(t, channels)),
        lambda a: linking.channels_first(linking.conv_back(a), channels),
    )
    yield Link(
        f"{ours}/pixels_out/bias",
        (f"{theirs}.out.2.bias",),
        lambda t: linking.pixels_first(t, channels),
        lambda a: linking.channels_first(a, channels),
    )


def _pixels_in(theirs: str, ours: str, decoder: unet.UNet) -> Iterator[Link]:
    """First convolution: folded pixels, then the channels of the condition."""
    channels = decoder.num_channels
    folded = decoder.patch_size**2 * channels

    def reorder(tensor: np.ndarray, order: Callable[..., np.ndarray]) -> np.ndarray:
        pixels, condition = tensor[:, :folded], tensor[:, folded:]
        return np.concatenate([order(pixels, channels, 1), condition], axis=1)

    yield Link(
        f"{ours}/kernel",
        (f"{theirs}.weight",),
        lambda t: linking.conv_into(reorder(t, linking.pixels_first)),
        lambda a: reorder(linking.conv_back(a), linking.channels_first),
    )
    yield Link(f"{ours}/bias", (f"{theirs}.bias",))


def _stage(theirs: str, ours: str, skip: bool, attends: bool) -> Iterator[Link]:
    yield from _resnet(f"{theirs}.0", f"{ours}/resnet", ADM, skip)
    if attends:
        yield from _attention(f"{theirs}.1", f"{ours}/attention")


def _attention(theirs: str, ours: str) -> Iterator[Link]:
    yield from linking.norm(f"{theirs}.norm", f"{ours}/norm/groups")
    yield from linking.dense(f"{theirs}.qkv", f"{ours}/qkv", conv=1)
    yield from linking.dense(f"{theirs}.proj_out", f"{ours}/out", conv=1)


def _uvit(decoder: uvit.UViT) -> Iterator[Link]:
    theirs, ours = "decoder", "params/decoder"
    levels, last = decoder.channels, len(decoder.channels) - 1
    for their_layer, our_layer in (("linear_1", "fc1"), ("linear_2", "fc2")):
        yield from linking.dense(
            f"{theirs}.time_embedding.{their_layer}", f"{ours}/time/{our_layer}"
        )
    yield from _patches(decoder)
    width = levels[0]
    skips = [width]
    for i, channels in enumerate(levels):
        for j in range(decoder.blocks_per_level):
            their_block, our_block = f"down_blocks.{i}.resnets.{j}", f"down_{i}/resnet_{j}"
            yield from _resnet(
                f"{theirs}.{their_block}", f"{ours}/{our_block}", DIFFUSERS, skip=width != channels
            )
            width = channels
            skips.append(width)
        if i < last:
            sampler = f"{theirs}.down_blocks.{i}.downsamplers.0.conv"
            yield from linking.conv(sampler, f"{ours}/downsample_{i}/conv")
            skips.append(width)
    if decoder.downsample_bottleneck:
        middle = f"{theirs}.downsample_mid"
        down = f"{ours}/downsample_bottleneck/conv"
        yield from linking.conv(f"{middle}.conv", down, alias=f"{middle}.Conv2d_0")
        yield from linking.conv(f"{theirs}.upsample_mid.conv", f"{ours}/upsample_bottleneck/conv")
    yield from _bottleneck(decoder)
    for i in range(len(levels)):
        for j in range(decoder.blocks_per_level + 1):
            their_block, our_block = f"up_blocks.{i}.resnets.{j}", f"up_{i}/resnet_{j}"
            # joined channels are always more than those of one level
            yield from _resnet(
                f"{theirs}.{their_block}", f"{ours}/{our_block}", DIFFUSERS, skip=True
            )
        if i < last:
            sampler = f"{theirs}.up_blocks.{i}.upsamplers.0.conv"
            yield from linking.conv(sampler, f"{ours}/upsample_{i}/conv")
    yield from linking.norm(f"{theirs}.conv_norm_out", f"{ours}/norm/groups")


def _patches(decoder: uvit.UViT) -> Iterator[Link]:
    """Strided convolutions as matrices over patches flattened in (row, column, channel) order."""
    patch, channels, width = decoder.patch_size, decoder.num_channels, decoder.channels[0]
    yield Link(
        "params/decoder/patches_in/kernel",
        ("decoder.conv_in.weight",),  # [width, c, p, p]
        lambda t: t.transpose(2, 3, 1, 0).reshape(-1, width),
        lambda a: a.reshape(patch, patch, channels, width).transpose(3, 2, 0, 1),
    )
    yield Link("params/decoder/patches_in/bias", ("decoder.conv_in.bias",))
    yield Link(
        "params/decoder/patches_out/kernel",
        ("decoder.conv_out.weight",),  # transposed convolution: [width, c, p, p]
        lambda t: t.transpose(0, 2, 3, 1).reshape(width, -1),
        lambda a: a.reshape(width, patch, patch, channels).transpose(0, 3, 1, 2),
    )
    yield Link("params/decoder/pixel_bias", ("decoder.conv_out.bias",))


def _bottleneck(decoder: uvit.UViT) -> Iterator[Link]:
    theirs, ours = "decoder.mid_block", "params/decoder/bottleneck"
    yield from linking.dense(f"{theirs}.mid_proj_in", f"{ours}/tokens_in")
    yield from linking.dense(f"{theirs}.mid_proj_out", f"{ours}/tokens_out")
    if decoder.conditioning == "concat":
        yield from linking.dense(f"{theirs}.mid_cond_proj", f"{ours}/condition_in")
        yield Link(f"{ours}/dropped", (f"{theirs}.mask_token",))
    half = decoder.depth // 2
    parts = [("blocks", range(decoder.depth), True)]
    if decoder.long_skip:
        parts = [
            ("blocks_in", range(half), True),
            ("block_middle", range(half, half + 1), False),
            ("blocks_out", range(half + 1, decoder.depth), True),
        ]
    for name, indices, stacked in parts:
        layers = [f"{theirs}.mid_block.{i}" for i in indices]
        block = _block(decoder, skip=name == "blocks_out")
        yield from linking.stack(block, layers, f"{ours}/{name}", stacked=stacked)


def _block(decoder: uvit.UViT, skip: bool) -> Iterator[Link]:
    """Links of one Transformer block, without prefixes."""
    cross = decoder.conditioning == "xattn"
    yield from linking.norm("norm1", "self_norm")
    yield from linking.norm("norm2", "mlp_norm")
    yield from linking.self_attention(
        "self_attn" if cross else "attn", "self_attention", decoder.dim, decoder.num_heads
    )
    if cross:
        yield from linking.norm("query_norm", "query_norm")
        yield from linking.norm("context_norm", "context_norm")
        for their_part, our_part in (("q", "q"), ("kv", "kv"), ("proj", "out")):
            yield from linking.dense(f"cross_attn.{their_part}", f"cross_attention/{our_part}")
    yield from linking.dense("mlp.fc1", "feed_forward/fc1")
    yield from linking.dense("mlp.fc2", "feed_forward/fc2")
    yield from linking.dense("adaLN_modulation", "modulation")
    yield from linking.dense("adaLN_gate", "gates")
    if skip:
        yield from linking.dense("skip_linear", "skip")
