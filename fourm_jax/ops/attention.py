"""The one attention entry: visibility is given by segments and ranks, the kernel by the device."""

import functools
from typing import Literal

import flax
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int

from fourm_jax.ops import each_device
from fourm_jax.utils import errors, hardware, progress

Backend = Literal["auto", "xla", "cudnn", "splash", "triton", "mosaic"]
BACKENDS = ("auto", "xla", "cudnn", "splash", "triton", "mosaic")
SAVED = "attended"  # name under which a rematerialization policy may keep the output
_PLATFORM = {"cudnn": "gpu", "triton": "gpu", "splash": "tpu", "mosaic": "tpu"}
# What XLA cannot cut over devices; cuDNN's kernels say how.
_OF_PALLAS = ("triton", "splash", "mosaic")
_LONG = 1024  # from this many keys on a TPU takes blocks of them, which Splash has
_HELD = 512  # up to this many tokens a program of a TPU holds the logits of a head
_FEW = 1024  # queries of a device, below which XLA has all logits in vector memory, too
_SHORT = 256  # up to this many tokens, and for these heads, our kernels are faster than cuDNN's
_SHORT_HEADS, _SHORT_BLOCK = 64, 64  # channels of a head; tokens of a block of `ops.flash`
# What numbers of slots are multiples of. cuDNN takes even ones alone. On a TPU XLA turns logits of
# 262 slots into another layout and back in every layer: they take four times as long as those of
# 264, and 196 almost three times as long as 200.
_WHOLE = {"gpu": 2, "tpu": 8}


@flax.struct.dataclass
class Visibility:
    """Query i sees key j iff their segments are equal, j is not padding and order_j <= order_i.

    Attributes:
      query_segment: [b, n].
      key_segment: [b, m]; negative = padding, seen by nobody.
      query_order, key_order: [b, n] and [b, m], or both None: order does not matter.
      key_length: [b], or None. Given only where every query sees the first `key_length` keys and no
        other: kernels that know lengths then need no mask.
      padding_may_differ: queries that see nothing are padding whose output nobody reads, so that a
        kernel may give them any finite value instead of 0.
    """

    query_segment: Int[Array, "b n"]
    key_segment: Int[Array, "b m"]
    query_order: Int[Array, "b n"] | None = None
    key_order: Int[Array, "b m"] | None = None
    key_length: Int[Array, "b"] | None = None
    padding_may_differ: bool = flax.struct.field(pytree_node=False, default=False)

    def mask(self) -> Bool[Array, "b 1 n m"]:
        """Dense form, True = query i sees key j; the axis of heads has size 1."""
        same = self.query_segment[:, None, :, None] == self.key_segment[:, None, None, :]
        seen = same & (self.key_segment >= 0)[:, None, None, :]
        if self.query_order is not None and self.key_order is not None:
            seen &= self.key_order[:, None, None, :] <= self.query_order[:, None, :, None]
        return seen


def sees_valid(
    valid: Bool[Array, "b m"],
    num_queries: int,
    *,
    packed: bool = False,
    padding_may_differ: bool = False,
) -> Visibility:
    """Every query sees every valid key; `packed`: those are the first ones of each sample."""
    return Visibility(
        jnp.zeros((valid.shape[0], num_queries), jnp.int32),
        jnp.where(valid, 0, -1),
        key_length=valid.sum(axis=1, dtype=jnp.int32) if packed else None,
        padding_may_differ=padding_may_differ,
    )


def whole(num_slots: int) -> int:
    """Slots that suit the attention of the device in use: as many, or a few more."""
    return num_slots + -num_slots % _WHOLE.get(hardware.platform(), 1)


def attend(
    q: Float[Array, "b n h k"],
    k: Float[Array, "b m h k"],
    v: Float[Array, "b m h k"],
    mask: Visibility | None = None,
    *,
    backend: Backend = "auto",
) -> Float[Array, "b n h k"]:
    """Return softmax(q kᵀ / sqrt(head_dim)) v in the dtype of `v`; logits and softmax in float32.

    Args:
      q, k, v: projected queries, keys and values; m may be 0.
      mask: which keys a query sees; None = all.
      backend: "xla" runs everywhere; "cudnn" and "triton" are fused kernels of NVIDIA GPUs,
        "mosaic" and, for long sequences, "splash" of TPUs. A kernel that cannot take these arrays
        says so once and leaves them to "xla". "auto" takes the fastest one that can, silently.

    A query that sees nothing gets exactly 0 (the published code averages over all keys there,
    which only padding meets, or attends over an empty axis, which gives 0 as here).

    Raises:
      ValueError: unknown backend.
    """
    if backend not in BACKENDS:
        raise ValueError(errors.unknown_value("attention backend", backend, BACKENDS))
    if backend == "auto":
        backend = _fastest(q, k, mask)
    elif obstacle := _obstacle(backend, q, k, mask):
        _say_once(f"attention backend {backend!r} {obstacle}: using 'xla'")
        backend = "xla"
    kernel = _KERNELS[backend]
    if backend in _OF_PALLAS:
        vectors = P(each_device.SAMPLES, None, each_device.CHANNELS)
        masks = P(each_device.SAMPLES)
        kernel = each_device.run(kernel, (vectors, vectors, vectors, masks), vectors)
    out = kernel(q, k, v, mask)
    # `ops.flash` names its own, for its backward pass: named again it would be kept twice.
    return out if backend == "triton" else checkpoint_name(out, SAVED)


def _fastest(q: Array, k: Array, mask: Visibility | None) -> Backend:
    platform = hardware.platform()
    preferred: Backend = "xla"
    if platform == "gpu":
        preferred = "triton" if _is_short(q, k, mask) else "cudnn"
    if platform == "tpu" and k.shape[1] >= _LONG:
        preferred = "splash"
    elif platform == "tpu":
        num_queries = len(q) * q.shape[1] // max(each_device.num_parts(len(q)), 1)
        preferred = "mosaic" if num_queries >= _FEW else "xla"
    return "xla" if _obstacle(preferred, q, k, mask) else preferred


def _is_short(q: Array, k: Array, mask: Visibility | None) -> bool:
    """Whether these are the short sequences, in whole blocks, that `ops.flash` is made for."""
    sizes = q.shape[1], k.shape[1]
    fits = max(sizes) <= _SHORT and not any(size % _SHORT_BLOCK for size in sizes)
    return fits and q.shape[3] == _SHORT_HEADS and not _obstacle("triton", q, k, mask)


def _obstacle(backend: str, q: Array, k: Array, mask: Visibility | None) -> str:
    """Why a backend cannot take these arrays; empty if it can."""
    (b, n, h, head_dim), m = q.shape, k.shape[1]
    if backend == "xla":
        return ""
    if hardware.platform() != _PLATFORM[backend]:
        return f"needs a {_PLATFORM[backend].upper()}"
    if min(n, m) == 0:
        return "needs at least one query and one key"
    if backend in _OF_PALLAS and not _divides(q):
        mesh = dict(jax.sharding.get_abstract_mesh().shape)
        return f"needs samples and heads that divide over the mesh {mesh}, not {b} and {h}"
    if backend == "splash":
        if mask is not None and mask.key_order is not None:
            return "knows segments, not ranks"
        return "" if n % 128 == m % 128 == 0 else f"needs multiples of 128 tokens, not {n} and {m}"
    if backend == "mosaic":
        return _obstacle_of_mosaic(q, k)
    if q.dtype not in (jnp.bfloat16, jnp.float16):
        return f"needs 16-bit floats, not {q.dtype}"
    if backend == "triton":
        fits = head_dim in (16, 32, 64, 128)
        return "" if fits else f"needs heads of 16, 32, 64 or 128 channels, not {head_dim}"
    if head_dim % 8 or head_dim > 128:
        return f"needs heads of a multiple of 8 and at most 128 channels, not {head_dim}"
    return "" if n % 2 == m % 2 == 0 else f"needs even numbers of tokens, not {n} and {m}"


def _obstacle_of_mosaic(q: Array, k: Array) -> str:
    from fourm_jax.ops import flash_tpu  # Pallas is slow to import

    (_, n, h, head_dim), m = q.shape, k.shape[1]
    if q.dtype != jnp.bfloat16:
        return f"needs bfloat16, not {q.dtype}"
    if max(n, m) > _HELD or n % 8 or m % 8:
        return f"needs multiples of 8, and at most {_HELD} tokens, not {n} and {m}"
    own = h // max(each_device.num_parts(h, each_device.CHANNELS), 1)
    fits = head_dim % 16 == 0 and flash_tpu.heads_at_once(own, head_dim)
    return "" if fits else f"needs heads that fill tiles, not {own} of {head_dim} channels"


def _divides(q: Array) -> bool:
    """Whether the mesh in use, if there is one, divides samples and heads evenly."""
    if jax.sharding.get_abstract_mesh().empty:
        return True
    num_heads, names = q.shape[2], each_device.CHANNELS
    return each_device.num_parts(len(q)) * each_device.num_parts(num_heads, names) > 0


@functools.cache
def _say_once(message: str) -> None:
    progress.announce(message)


def _xla(
    q: Float[Array, "b n h k"],
    k: Float[Array, "b m h k"],
    v: Float[Array, "b m h k"],
    mask: Visibility | None,
) -> Float[Array, "b n h k"]:
    # Heads first: with them inside, XLA's CPU backend takes three times as long for the products.
    q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
    return jnp.swapaxes(heads_first(q, k, v, mask), 1, 2)


def heads_first(
    q: Float[Array, "b h n k"],
    k: Float[Array, "b h m k"],
    v: Float[Array, "b h m k"],
    mask: Visibility | None,
) -> Float[Array, "b h n k"]:
    """As `attend` by XLA, with the heads before the tokens."""
    logits = jnp.einsum("bhnk,bhmk->bhnm", q, k, preferred_element_type=jnp.float32)
    logits *= q.shape[-1] ** -0.5
    if mask is None:
        probs = jax.nn.softmax(logits, axis=-1)
    else:
        seen = mask.mask()
        probs = jax.nn.softmax(jnp.where(seen, logits, jnp.finfo(jnp.float32).min), axis=-1)
        probs = jnp.where(seen, probs, 0.0)
    return jnp.einsum("bhnm,bhmk->bhnk", probs.astype(v.dtype), v)


def _cudnn(
    q: Float[Array, "b n h k"],
    k: Float[Array, "b m h k"],
    v: Float[Array, "b m h k"],
    mask: Visibility | None,
) -> Float[Array, "b n h k"]:
    kernel = functools.partial(jax.nn.dot_product_attention, q, k, v, implementation="cudnn")
    if mask is None:
        return kernel()
    if mask.key_length is not None:
        out = kernel(key_value_seq_lengths=jnp.maximum(mask.key_length, 1))
    else:
        seen = mask.mask()
        # A query that sees nothing would give nan gradients, so it sees everything before it is
        # set to 0.
        out = kernel(mask=seen | ~seen.any(axis=-1, keepdims=True))
    return out if mask.padding_may_differ else _zero_unseeing(out, mask)


def _triton(
    q: Float[Array, "b n h k"],
    k: Float[Array, "b m h k"],
    v: Float[Array, "b m h k"],
    mask: Visibility | None,
) -> Float[Array, "b n h k"]:
    from fourm_jax.ops import flash  # Pallas is slow to import and needs no place on a CPU

    return flash.flash_attention(q, k, v, flash_masks(mask))


def _mosaic(
    q: Float[Array, "b n h k"],
    k: Float[Array, "b m h k"],
    v: Float[Array, "b m h k"],
    mask: Visibility | None,
) -> Float[Array, "b n h k"]:
    from fourm_jax.ops import flash_tpu

    return flash_tpu.attention(q, k, v, flash_masks(mask))


def _splash(
    q: Float[Array, "b n h k"],
    k: Float[Array, "b m h k"],
    v: Float[Array, "b m h k"],
    mask: Visibility | None,
    interpret: bool = False,
) -> Float[Array, "b n h k"]:
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    kernel = splash.make_splash_mha_single_device(
        splash.MultiHeadMask([splash.FullMask((q.shape[1], k.shape[1]))] * q.shape[2]),
        interpret=interpret,
    )
    heads_first = (jnp.swapaxes(x, 1, 2) for x in (q * q.shape[-1] ** -0.5, k, v))
    if mask is None:
        return jnp.swapaxes(jax.vmap(kernel)(*heads_first), 1, 2)
    segments = splash.SegmentIds(mask.query_segment, mask.key_segment)
    out = jnp.swapaxes(jax.vmap(kernel)(*heads_first, segments), 1, 2)
    return _zero_unseeing(out, mask)


def flash_masks(mask: Visibility | None) -> tuple[Array, ...]:
    """A visibility as `ops.flash` takes it."""
    from fourm_jax.ops import flash

    if mask is None:
        return ()
    if mask.key_length is not None:
        return (mask.key_length,)
    query, key = mask.query_segment, mask.key_segment
    if mask.query_order is None or mask.key_order is None:
        return flash.codes(query, key, jnp.zeros_like(query), jnp.zeros_like(key))
    return flash.codes(query, key, mask.query_order, mask.key_order)


def _zero_unseeing(out: Float[Array, "b n h k"], mask: Visibility) -> Float[Array, "b n h k"]:
    """Set queries that see nothing to 0; the kernels average over some keys there."""
    if mask.key_length is not None:
        any_seen = (mask.key_length > 0)[:, None, None, None]
    else:
        any_seen = jnp.swapaxes(mask.mask().any(axis=-1, keepdims=True), 1, 2)
    return jnp.where(any_seen, out, jnp.zeros((), out.dtype))


_KERNELS = {
    "xla": _xla,
    "cudnn": _cudnn,
    "triton": _triton,
    "splash": _splash,
    "mosaic": _mosaic,
}
