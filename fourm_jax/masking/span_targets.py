"""T5-style span masking of texts: what to mask, and what stands in each input and target slot.

Nothing is built that nobody reads: spans stay in token coordinates (`Spans`), and the entries of
the masked text and of its target are looked up for exactly the slots that were granted.

    text         a  b  c  d  e    masked b, c, e
    input        a [S1] d [S2]
    target      [S1] b  c [S2] e [S3]
"""

from collections.abc import Callable

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from fourm_jax.utils import hardware

TRY_DECAY = 0.9  # keep probability of each try relative to the one before


@flax.struct.dataclass
class Spans:
    """Masked spans of s texts of at most l tokens.

    Attributes:
      masked: [s, l], False beyond the text.
      run: [s, l] number of masked spans that begin at or before the token.
      input_end, target_end: [s, l] number of entries of the masked text (of its target) up to and
        including those of the token. A token has 1 or 0 input entries and 0, 1 or 2 target ones.
      num_inputs, num_targets: [s] lengths of both. The target ends with one sentinel more than
        there are spans; a text of length 0 is absent and has no entries at all.
    """

    masked: Bool[Array, "s l"]
    run: Int[Array, "s l"]
    input_end: Int[Array, "s l"]
    target_end: Int[Array, "s l"]
    num_inputs: Int[Array, "s"]
    num_targets: Int[Array, "s"]


def choose_masked(
    bits: UInt32[Array, "s l"],
    tries: UInt32[Array, "2 t"],
    keep_prob: Float[Array, "s"],
    budget: Int[Array, "s"],
    length: Int[Array, "s"],
    chunk: Int[Array, "s l"],
) -> Bool[Array, "s l"]:
    """Keep each chunk with probability `keep_prob`, less until the masked text fits its budget.

    The published loop draws again with 0.9 times the probability until the masked text has at most
    `budget` entries. Here all tries are measured at once and the first that fits is taken. Within
    a try, chunks are independent and uniform; tries differ by random odd multipliers and offsets
    (multiply-shift hashing), which is far cheaper than fresh bits. What no try fits (t = 64:
    probability < 1e-4 even for one slot and 290 tokens) is masked whole, the limit of the loop.

    Args:
      bits, tries: random bits.
      keep_prob: in [0, 1]; 0 masks everything.
      chunk: chunk of each token, any value in 0..l-1 that the tokens of a chunk share.
    """
    exists = jnp.arange(chunk.shape[1]) < length[:, None]
    bits = jnp.take_along_axis(bits, chunk, axis=1)
    multiplier, offset = tries[0] | 1, tries[1]
    decay = TRY_DECAY ** np.arange(tries.shape[1])
    threshold = (keep_prob[:, None] * decay * 2.0**30).astype(jnp.int32)  # [s, t]

    def kept(bits: UInt32[Array, "... 1"]) -> Bool[Array, "..."]:
        """By token and try; `bits` of one token [s, 1], or of all in front [l, s, 1]."""
        return ((bits * multiplier + offset) >> 2).astype(jnp.int32) < threshold

    fits = _count_entries(kept, threshold.shape, bits, exists) <= budget[:, None]
    first = jnp.argmax(fits, axis=1)
    noise = (bits * multiplier[first][:, None] + offset[first][:, None]) >> 2
    keep = noise.astype(jnp.int32) < jnp.take_along_axis(threshold, first[:, None], axis=1)
    return exists & ~(keep & fits.any(axis=1)[:, None])


def _count_entries(
    kept: Callable[[Array], Array],
    shape: tuple[int, ...],
    bits: UInt32[Array, "s l"],
    exists: Bool[Array, "s l"],
) -> Int[Array, "s t"]:
    """Entries of the masked text in each try: one per token, unless it and the last are masked.

    An accelerator adds all tokens up in one kernel, where a loop takes several for every few of
    them. A CPU loops, with the tries side by side, which vectorizes; the sum took it 30 times as
    long.
    """
    bits, exists = bits.T[..., None], exists.T[..., None]  # [l, s, 1]
    if hardware.platform() != "cpu":
        keep = kept(bits)
        before = jnp.pad(keep[:-1], ((1, 0), (0, 0), (0, 0)), constant_values=True)
        return ((keep | before) & exists).sum(0)

    def count(carry, token):
        before, entries = carry
        keep = kept(token[0])
        return (keep, entries + ((keep | before) & token[1])), None

    start = (jnp.full(shape, True), jnp.zeros(shape, jnp.int32))
    (_, entries), _ = jax.lax.scan(count, start, (bits, exists), unroll=5)
    return entries


def find_spans(masked: Bool[Array, "s l"], length: Int[Array, "s"]) -> Spans:
    """Number the masked spans and count the entries of the masked texts and their targets."""
    exists = jnp.arange(masked.shape[1]) < length[:, None]
    masked = masked & exists
    begins = masked & ~jnp.pad(masked[:, :-1], ((0, 0), (1, 0)))
    # Three running counts below 2^10 in one, because running sums are the costly part.
    flags = begins * 1 + ((exists & ~masked) | begins) * 2**10 + masked * 2**20
    counts = jnp.cumsum(flags, axis=1)
    run, input_end = counts % 2**10, counts // 2**10 % 2**10
    target_end = counts // 2**20 + run
    return Spans(
        masked=masked,
        run=run,
        input_end=input_end,
        target_end=target_end,
        num_inputs=input_end[:, -1],
        num_targets=jnp.where(length > 0, target_end[:, -1] + 1, 0),
    )


def choose_window(
    spans: Spans, budget: Int[Array, "s"], chosen: Int[Array, "s"]
) -> tuple[Int[Array, "s"], Int[Array, "s"]]:
    """Cut targets that exceed their budget to a part that begins at a sentinel.

    Source: docs/published.md#masking.

    From the chosen sentinel `budget` entries are taken if there are that many; otherwise the
    longest end of the target that begins at a sentinel and fits.

    Args:
      budget: entries allowed, >= 0.
      chosen: index of a sentinel of the target, 0 .. max(1, number of spans) - 1.

    Returns:
      First entry and number of entries.
    """
    begins = spans.masked & (jnp.diff(spans.run, axis=1, prepend=0) > 0)
    at = spans.target_end - 2  # entry of the sentinel of a span, read at the span's first token
    is_chosen = begins & (spans.run == chosen[:, None] + 1)
    start = jnp.sum(jnp.where(is_chosen, at, 0), axis=1)
    total = spans.num_targets
    fitting = begins & (at >= (total - budget)[:, None])
    tail = jnp.min(jnp.where(fitting, at, total[:, None] - 1), axis=1)
    start = jnp.where(total - start >= budget, start, tail)
    start = jnp.where(total <= budget, 0, start)
    return start, jnp.minimum(total - start, budget)


def input_entry(
    spans: Spans,
    ids: Int[Array, "s l"],
    first_sentinel: Int[Array, "s"],
    row: Int[Array, "n"],
    entry: Int[Array, "n"],
) -> Int[Array, "n"]:
    """Id at place `entry` of the masked text `row`.

    Args:
      first_sentinel: id of the sentinel of the first span; the next ones follow it. Negative:
        every span is replaced by id 0 instead (zero vectors of embeddings).
    """
    token = _find(spans.input_end, row, entry)
    sentinel = jnp.where(
        first_sentinel[row] < 0, 0, first_sentinel[row] + spans.run[row, token] - 1
    )
    return jnp.where(spans.masked[row, token], sentinel, ids[row, token])


def target_entry(
    spans: Spans,
    ids: Int[Array, "s l"],
    first_sentinel: Int[Array, "s"],
    row: Int[Array, "n"],
    entry: Int[Array, "n"],
) -> Int[Array, "n"]:
    """Id at place `entry` of the target of text `row`."""
    token = _find(spans.target_end, row, entry)
    end, run = spans.target_end[row, token], spans.run[row, token]
    last = entry >= spans.num_targets[row] - 1  # the final sentinel, after the text's last span
    sentinel = first_sentinel[row] + jnp.where(last, spans.run[row, -1], run - 1)
    return jnp.where(last | (end - entry == 2), sentinel, ids[row, token])


def _find(end: Int[Array, "s l"], row: Int[Array, "n"], entry: Int[Array, "n"]) -> Int[Array, "n"]:
    """First token of `row` whose entries reach beyond place `entry`."""
    num_rows, size = end.shape
    stride = 2 * size + 1  # more than a row can count, so that one search serves all rows
    flat = (end + jnp.arange(num_rows)[:, None] * stride).reshape(-1)
    wanted = row * stride + entry
    # unrolled: every round of a loop is a kernel or two, and this a few operations
    token = jnp.searchsorted(flat, wanted, side="right", method="scan_unrolled") - row * size
    return jnp.clip(token, 0, size - 1)
