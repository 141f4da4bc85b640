"""One entry per array of ours: the published tensors behind it, and the exact maps both ways."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

Transform = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Link:
    """One of our arrays and the published tensors it comes from.

    Attributes:
      path: ours, "params/encoder/patches_in/kernel".
      names: published; several are stacked on a new first axis (scanned blocks).
      into, back: one published tensor -> our (unstacked) array, and the inverse.
      stacked: whether `names` are stacked.
      aliases: further published names of the same tensor.
    """

    path: str
    names: tuple[str, ...]
    into: Transform = lambda tensor: tensor
    back: Transform = lambda array: array
    stacked: bool = False
    aliases: tuple[str, ...] = ()


def dense(theirs: str, ours: str, *, conv: int = 0) -> Iterator[Link]:
    """Linear layer, or with `conv` a convolution of size 1 over that many axes."""

    def into(tensor: np.ndarray) -> np.ndarray:
        return tensor.reshape(tensor.shape[:2]).T

    def back(array: np.ndarray) -> np.ndarray:
        return array.T.reshape(*array.T.shape, *(1,) * conv)

    yield Link(f"{ours}/kernel", (f"{theirs}.weight",), into, back)
    yield Link(f"{ours}/bias", (f"{theirs}.bias",))


def conv(theirs: str, ours: str, alias: str | None = None) -> Iterator[Link]:
    """Convolution: [out, in, h, w] there, [h, w, in, out] here; `alias` is a second name."""
    weight, bias = ((f"{alias}.weight",), (f"{alias}.bias",)) if alias else ((), ())
    yield Link(f"{ours}/kernel", (f"{theirs}.weight",), conv_into, conv_back, aliases=weight)
    yield Link(f"{ours}/bias", (f"{theirs}.bias",), aliases=bias)


def conv_into(tensor: np.ndarray) -> np.ndarray:
    """[out, in, h, w] -> [h, w, in, out]."""
    return tensor.transpose(2, 3, 1, 0)


def conv_back(array: np.ndarray) -> np.ndarray:
    """Inverse of `conv_into`."""
    return array.transpose(3, 2, 0, 1)


def norm(theirs: str, ours: str) -> Iterator[Link]:
    """Scale and bias of a norm."""
    yield Link(f"{ours}/scale", (f"{theirs}.weight",))
    yield Link(f"{ours}/bias", (f"{theirs}.bias",))


def self_attention(theirs: str, ours: str, dim: int, num_heads: int) -> Iterator[Link]:
    """Self-attention with biases: one matrix for queries, keys and values, and a projection."""
    heads = (num_heads, dim // num_heads)
    yield Link(
        f"{ours}/qkv/kernel",
        (f"{theirs}.qkv.weight",),
        lambda tensor: tensor.T.reshape(dim, 3, *heads),
        lambda array: array.reshape(dim, 3 * dim).T,
    )
    yield Link(
        f"{ours}/qkv/bias",
        (f"{theirs}.qkv.bias",),
        lambda tensor: tensor.reshape(3, *heads),
        lambda array: array.reshape(-1),
    )
    yield Link(
        f"{ours}/out/kernel",
        (f"{theirs}.proj.weight",),
        lambda tensor: tensor.T.reshape(*heads, dim),
        lambda array: array.reshape(dim, dim).T,
    )
    yield Link(f"{ours}/out/bias", (f"{theirs}.proj.bias",))


def stack(
    block: Iterable[Link], theirs: Sequence[str], ours: str, *, stacked: bool = True
) -> Iterator[Link]:
    """Links of one block, without prefixes -> links of its layers, stacked on a new first axis.

    Args:
      block: of one layer.
      theirs: prefix of each layer.
      ours: prefix of the stack.
      stacked: False = a single layer that has no such axis.
    """
    for link in block:
        names = tuple(f"{layer}.{link.names[0]}" for layer in theirs)
        yield Link(f"{ours}/{link.path}", names, link.into, link.back, stacked)


def pixels_first(tensor: np.ndarray, channels: int, axis: int = 0) -> np.ndarray:
    """Reorder folded pixels from (channel, row, column) to (row, column, channel)."""
    side = _side(tensor.shape[axis], channels)
    shape = (*tensor.shape[:axis], channels, side, side, *tensor.shape[axis + 1 :])
    return np.moveaxis(tensor.reshape(shape), axis, axis + 2).reshape(tensor.shape)


def channels_first(array: np.ndarray, channels: int, axis: int = 0) -> np.ndarray:
    """Inverse of `pixels_first`."""
    side = _side(array.shape[axis], channels)
    shape = (*array.shape[:axis], side, side, channels, *array.shape[axis + 1 :])
    return np.moveaxis(array.reshape(shape), axis + 2, axis).reshape(array.shape)


def _side(size: int, channels: int) -> int:
    return round((size // channels) ** 0.5)
