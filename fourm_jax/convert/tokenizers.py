"""Published tokenizer weights <-> ours, tensor by tensor, both ways and bit for bit.

Every published tensor is either linked to one of our arrays, or derived (position tables, which
we compute), or an error. Encoder and quantizer have their own link tables, so that families that
share them (VQ-VAE, DiVAE) share the conversion.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from fourm_jax.convert import divae, linking
from fourm_jax.convert.linking import Link
from fourm_jax.convert.report import Report
from fourm_jax.models import quantizers
from fourm_jax.models.backbones import mlp, vit
from fourm_jax.tokenizers import autoencoder, base, vqcontrolnet

Tensors = Mapping[str, np.ndarray]
POSITION_TOLERANCE = 1e-5


def import_tensors(
    family: str, arguments: Mapping[str, Any], tensors: Tensors
) -> tuple[nn.Module, dict[str, Any], Report]:
    """Return (module, variables, report) of a published state dict.

    Args:
      family, arguments: of `convert.tokenizer_config.arguments_of`.
      tensors: published names -> arrays; those of unsupported parts are not read.

    Raises:
      ValueError: a tensor is missing, unexplained, of another shape or not of floats; a position
        table is not the sin-cos one.
    """
    module = base.build(family, arguments)
    expected = base.abstract_variables(module)
    expected = flax.traverse_util.flatten_dict(expected, sep="/")
    flat: dict[str, np.ndarray] = {}
    used: list[str] = []
    for link in links(module):
        parts = [link.into(_take(tensors, name)) for name in link.names]
        array = np.stack(parts) if link.stacked else parts[0]
        target = expected[link.path]
        if array.shape != target.shape:
            raise ValueError(
                f"tensor {link.names[0]!r}: shape {tensors[link.names[0]].shape} gives "
                f"{array.shape}, {link.path!r} has {target.shape}"
            )
        if not jnp.issubdtype(array.dtype, target.dtype if target.dtype == bool else jnp.floating):
            raise ValueError(f"tensor {link.names[0]!r} is {array.dtype}, expected floats")
        flat[link.path] = array.astype(target.dtype)
        used += link.names
        for alias in link.aliases:
            if not np.array_equal(_take(tensors, alias), tensors[link.names[0]]):
                raise ValueError(f"tensor {alias!r} differs from {link.names[0]!r}, its other name")
            used.append(alias)
    derived = derived_tensors(module)
    for name, table in derived.items():
        found = _take(tensors, name)
        if not jnp.issubdtype(found.dtype, jnp.floating):
            raise ValueError(f"tensor {name!r} is {found.dtype}, expected floats")
        tolerance = POSITION_TOLERANCE + float(jnp.finfo(found.dtype).eps)
        if found.shape != table.shape or not np.abs(found - table).max() <= tolerance:
            raise ValueError(f"tensor {name!r} is not the sin-cos table {table.shape} it should be")
    leftover = sorted(set(tensors) - set(used) - set(derived))
    unsupported: list[str] = []
    if isinstance(module, vqcontrolnet.CodeEncoder):
        unsupported = [name for name in leftover if name.startswith(vqcontrolnet.ELSEWHERE)]
        leftover = sorted(set(leftover) - set(unsupported))
    if leftover:
        raise ValueError(f"{len(leftover)} unexplained tensors, first: {leftover[:3]}")
    unset = sorted(set(expected) - set(flat))
    assert not unset, f"no link for {unset}"
    variables = flax.traverse_util.unflatten_dict(flat, sep="/")
    return module, variables, Report(tuple(used), tuple(derived), tuple(unsupported))


def export_tensors(module: nn.Module, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the published state dict; inverse of `import_tensors`.

    Raises:
      ValueError: a VQControlNet, of which only a part was ever read; a backbone without published
        form.
    """
    if isinstance(module, vqcontrolnet.CodeEncoder):
        raise ValueError(f"cannot be exported: {vqcontrolnet.NO_DECODER}")
    flat = flax.traverse_util.flatten_dict(jax.device_get(variables), sep="/")
    tensors = dict(derived_tensors(module))
    for link in links(module):
        array = np.asarray(flat[link.path])
        parts = array if link.stacked else [array]
        for name, part in zip(link.names, parts, strict=True):
            tensors[name] = np.ascontiguousarray(link.back(part))
        tensors |= dict.fromkeys(link.aliases, tensors[link.names[0]])
    return tensors


def _take(tensors: Tensors, name: str) -> np.ndarray:
    if name not in tensors:
        raise ValueError(f"tensor {name!r} is missing")
    return tensors[name]


def links(module: nn.Module) -> list[Link]:
    """All links of a tokenizer."""
    if isinstance(module, vqcontrolnet.CodeEncoder):
        return list(front_links(module))
    if not isinstance(module, autoencoder.Autoencoder):
        return [*front_links(module), *divae.decoder_links(module.decoder)]
    return [
        *front_links(module),
        *linking.dense("post_quant_proj", "params/from_latent", conv=2),
        *backbone_links(module.decoder, "decoder"),
    ]


def front_links(module: nn.Module) -> Iterator[Link]:
    """Links from the raw signal to the codes: shared by VQ-VAE, DiVAE and VQControlNet."""
    if module.signal.kind == "classes":
        yield Link("params/class_embedding/embedding", ("cls_emb.weight",))
    yield from backbone_links(module.encoder, "encoder")
    yield from linking.dense("quant_proj", "params/to_latent", conv=2)
    yield from quantizer_links(module.quantizer)


def derived_tensors(module: nn.Module) -> dict[str, np.ndarray]:
    """Published tensors that we compute: position tables [1, d, rows, columns]."""
    tables = divae.derived_tensors(module.decoder) if hasattr(module, "decoder") else {}
    for side in ("encoder", "decoder"):
        backbone = getattr(module, side, None)
        if isinstance(backbone, vit.Encoder | vit.Decoder):
            table = vit.position_table(backbone.grid, backbone.grid, backbone.dim)
            tables[f"{side}.pos_emb"] = np.ascontiguousarray(table.transpose(2, 0, 1)[None])
    return tables


def quantizer_links(quantizer: nn.Module) -> Iterator[Link]:
    """Links of a codebook (published prefix `quantize`)."""
    if isinstance(quantizer, quantizers.Memcodes):
        yield Link("params/quantizer/codes", ("quantize.codes",))
        yield Link("params/quantizer/to_keys", ("quantize.to_k.weight",))
        yield Link("params/quantizer/to_values", ("quantize.to_v.weight",))
        return
    book, ours = "quantize._codebook", "codebook/quantizer"
    yield Link(f"{ours}/codes", (f"{book}.embed",))
    yield Link(f"{ours}/cluster_size", (f"{book}.cluster_size",))
    yield Link(
        f"{ours}/initialized",
        (f"{book}.initted",),
        into=lambda flag: flag.reshape(()) != 0,
        back=lambda flag: flag.reshape(1).astype(np.float32),
    )
    if quantizer.metric == "euclidean":
        yield Link(f"{ours}/code_sums", (f"{book}.embed_avg",))


def backbone_links(backbone: nn.Module, name: str) -> Iterator[Link]:
    """Links of an encoder or decoder; `name` is its prefix on both sides."""
    ours = f"params/{name}"
    if isinstance(backbone, vit.Encoder):
        yield from _patches_in(f"{name}.proj", f"{ours}/patches_in", backbone.patch_size)
        yield from _trunk(backbone, name)
    elif isinstance(backbone, vit.Decoder):
        yield from _trunk(backbone, name)
        yield from _patches_out(
            f"{name}.out_proj", f"{ours}/patches_out", backbone.patch_size, backbone.num_channels
        )
        for i in range(2 * backbone.out_conv):
            yield from _convnext(f"{name}.out_conv.{i}", f"{ours}/out_conv_{i}")
    elif isinstance(backbone, mlp.BottleneckMLP | mlp.LinearStack):
        yield from _pointwise(backbone, name)
    else:
        raise ValueError(f"no published form of a {type(backbone).__name__}")


def _trunk(backbone: vit.Encoder | vit.Decoder, name: str) -> Iterator[Link]:
    layers = [f"{name}.blocks.{i}" for i in range(backbone.depth)]
    yield from linking.stack(_block(backbone), layers, f"params/{name}/blocks")
    if backbone.post_mlp:
        yield from linking.norm(f"{name}.norm_mlp", f"params/{name}/post_mlp/norm")
        for layer in ("fc1", "fc2"):
            yield from linking.dense(f"{name}.post_mlp.{layer}", f"params/{name}/post_mlp/{layer}")


def _block(backbone: vit.Encoder | vit.Decoder) -> Iterator[Link]:
    """Links of one Transformer block, without prefixes."""
    yield from linking.self_attention("attn", "self_attention", backbone.dim, backbone.num_heads)
    yield from linking.norm("norm1", "self_norm")
    yield from linking.norm("norm2", "mlp_norm")
    for layer in ("fc1", "fc2"):
        yield from linking.dense(f"mlp.{layer}", f"feed_forward/{layer}")


def _pointwise(backbone: nn.Module, name: str) -> Iterator[Link]:
    ours = f"params/{name}"
    yield from linking.dense(f"{name}.linear_in", f"{ours}/linear_in")
    for i in range(backbone.depth):
        yield from linking.norm(f"{name}.layernorms.{i}", f"{ours}/block_{i}/norm")
        if isinstance(backbone, mlp.LinearStack):
            yield from linking.dense(f"{name}.layers.{i}", f"{ours}/block_{i}/fc1")
        else:
            yield from linking.dense(f"{name}.blocks.{i}.block.0", f"{ours}/block_{i}/fc1")
            yield from linking.dense(f"{name}.blocks.{i}.block.2", f"{ours}/block_{i}/fc2")
    yield from linking.dense(f"{name}.linear_out", f"{ours}/linear_out")


def _convnext(theirs: str, ours: str) -> Iterator[Link]:
    yield from linking.conv(f"{theirs}.dwconv", f"{ours}/depthwise")
    yield from linking.norm(f"{theirs}.norm", f"{ours}/norm")
    yield from linking.dense(f"{theirs}.pwconv1", f"{ours}/fc1")
    yield from linking.dense(f"{theirs}.pwconv2", f"{ours}/fc2")
    yield Link(f"{ours}/scale", (f"{theirs}.gamma",))


def _patches_in(theirs: str, ours: str, patch: int) -> Iterator[Link]:
    """Strided convolution [d, c, p, p] -> matrix over flattened (row, column, channel) patches."""
    yield Link(
        f"{ours}/kernel",
        (f"{theirs}.weight",),
        lambda t: t.transpose(2, 3, 1, 0).reshape(-1, t.shape[0]),
        lambda a: a.reshape(patch, patch, -1, a.shape[1]).transpose(3, 2, 0, 1),
    )
    yield Link(f"{ours}/bias", (f"{theirs}.bias",))


def _patches_out(theirs: str, ours: str, patch: int, channels: int) -> Iterator[Link]:
    """Rows in (channel, row, column) order -> columns in (row, column, channel) order."""

    def into(tensor: np.ndarray) -> np.ndarray:
        rows = tensor.reshape(channels, patch, patch, -1)
        return rows.transpose(3, 1, 2, 0).reshape(-1, patch * patch * channels)

    def back(array: np.ndarray) -> np.ndarray:
        columns = array.reshape(-1, patch, patch, channels)
        return columns.transpose(3, 1, 2, 0).reshape(channels * patch * patch, -1)

    yield Link(f"{ours}/kernel", (f"{theirs}.weight",), into, back)
    yield Link(
        f"{ours}/bias",
        (f"{theirs}.bias",),
        lambda t: into(t[:, None])[0],
        lambda a: back(a[None])[:, 0],
    )
