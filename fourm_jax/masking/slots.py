"""Fill the slots of a TokenBatch as a `Plan` says: which token stands in each slot."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import flax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Integer

from fourm_jax.contracts import AnyArray, Batch, InputTokens, TargetTokens
from fourm_jax.masking import span_targets
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.modalities.vocabulary import TextVocabulary
from fourm_jax.utils import errors

SPAN_KINDS = ("sequence", "embedding")  # masked by spans; all others by random subsets


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """Static facts of a run, as arrays over its span modalities (s) and its cell modalities (g).

    Attributes:
      specs: all modalities of the model; the arrays below hold indices into them.
      spans, cells: modality index of each row; a single dummy row -1 where there is none.
      span_size: longest text or vector list, the padded length of all of them.
      first_sentinel: [s] id of the first sentinel; -1 for embeddings.
      sizes: [g] number of cells (× codes).
      offsets: [g] where the ids of each begin in the sample's flat list of ids; -1 for pixels.
      is_input, is_output: [num modalities].
    """

    specs: tuple[ModalitySpec, ...]
    spans: Int[np.ndarray, "s"]
    cells: Int[np.ndarray, "g"]
    span_size: int
    first_sentinel: Int[np.ndarray, "s"]
    sizes: Int[np.ndarray, "g"]
    offsets: Int[np.ndarray, "g"]
    is_input: Bool[np.ndarray, "m"]
    is_output: Bool[np.ndarray, "m"]

    def per_modality(
        self, span_values: Int[Array, "s"], cell_values: Int[Array, "g"]
    ) -> Int[Array, "m"]:
        """Values of the rows in the order of `specs` [m], 0 for modalities that are not used."""
        rows = np.full(len(self.specs), len(self.spans) + len(self.cells))
        rows[self.spans[self.spans >= 0]] = np.flatnonzero(self.spans >= 0)
        rows[self.cells[self.cells >= 0]] = len(self.spans) + np.flatnonzero(self.cells >= 0)
        return jnp.concatenate([span_values, cell_values, jnp.zeros(1, jnp.int32)])[rows]


def layout(
    specs: Sequence[ModalitySpec],
    inputs: Sequence[str],
    outputs: Sequence[str],
    vocabulary: TextVocabulary,
) -> Layout:
    """Check the names and lay the modalities out.

    Raises:
      ValueError: a name that is not in `specs`, an output without a vocabulary, or texts that
        could need more sentinels than the vocabulary has.
    """
    known = {spec.name: spec for spec in specs}
    for name in (*inputs, *outputs):
        if name not in known:
            raise ValueError(errors.unknown_value("modality", name, known))
    for name in outputs:
        if not known[name].is_token:
            raise ValueError(f"{name!r} ({known[name].kind}) has no vocabulary: input only")
    used = [i for i, spec in enumerate(specs) if spec.name in (*inputs, *outputs)]
    spans = [i for i in used if specs[i].kind in SPAN_KINDS]
    cells = [i for i in used if specs[i].kind not in SPAN_KINDS]
    span_size = max([specs[i].max_tokens for i in spans], default=1)
    if (span_size + 1) // 2 + 1 >= vocabulary.num_sentinels:
        raise ValueError(
            f"texts of {span_size} tokens can need {(span_size + 1) // 2 + 1} sentinels, "
            f"the vocabulary has {vocabulary.num_sentinels - 1}"
        )
    offsets, total = [], 0
    for i in cells:
        offsets.append(total if specs[i].is_token else -1)
        total += specs[i].num_tokens if specs[i].is_token else 0
    first = vocabulary.sentinel_id(1)
    return Layout(
        specs=tuple(specs),
        spans=np.array(spans or [-1]),
        cells=np.array(cells or [-1]),
        span_size=span_size,
        first_sentinel=np.array([first if specs[i].is_token else -1 for i in spans] or [first]),
        sizes=np.array([specs[i].num_tokens for i in cells] or [1]),
        offsets=np.array(offsets or [-1]),
        is_input=np.array([spec.name in inputs for spec in specs]),
        is_output=np.array([spec.name in outputs for spec in specs]),
    )


@flax.struct.dataclass
class Sample:
    """The tokens of one sample (of a batch: one more axis in front).

    Attributes:
      mixture: which masking mixture it follows.
      ids, chunk: [s, l] texts; for embeddings 1 + index of the vector.
      length: [s], 0 = absent.
      cell_ids: [p] ids of all token cells, one modality after the other.
      present: [g].
    """

    mixture: Int[Array, "*b"]
    ids: Int[Array, "*b s l"]
    chunk: Int[Array, "*b s l"]
    length: Int[Array, "*b s"]
    cell_ids: Int[Array, "*b p"]
    present: Bool[Array, "*b g"]


def stack(batch: Batch, layout: Layout) -> Sample:
    """Bring the entries of a batch into the rows of the layout.

    Raises:
      ValueError: a modality of the run without an entry, or ids of another length than its spec.
    """
    ids, chunk, length, cell_ids, present = [], [], [], [], []
    for i in layout.spans[layout.spans >= 0]:
        spec, entry = layout.specs[i], _entry(batch, layout.specs[i])
        index = jnp.arange(spec.max_tokens)
        shape = (len(entry["length"]), spec.max_tokens)
        row = entry["ids"] if spec.is_token else jnp.broadcast_to(index + 1, shape)
        _check_size(spec, row, spec.max_tokens)
        pad = ((0, 0), (0, layout.span_size - spec.max_tokens))
        ids.append(jnp.pad(row.astype(jnp.int32), pad))
        own = entry["chunk"].astype(jnp.int32) if spec.chunked else jnp.broadcast_to(index, shape)
        chunk.append(jnp.pad(own, pad))
        length.append(jnp.minimum(entry["length"].astype(jnp.int32), spec.max_tokens))
    for i in layout.cells[layout.cells >= 0]:
        spec, entry = layout.specs[i], _entry(batch, layout.specs[i])
        if spec.is_token:
            row = entry["ids"].reshape(len(entry["present"]), -1).astype(jnp.int32)
            _check_size(spec, row, spec.num_tokens)
            cell_ids.append(row)
        present.append(entry["present"])
    b = len((length or present)[0])
    no_ids = jnp.zeros((b, 1, layout.span_size), jnp.int32)
    return Sample(
        mixture=jnp.asarray(batch.get("mixture", np.zeros(b))).astype(jnp.int32),
        ids=jnp.stack(ids, 1) if ids else no_ids,
        chunk=jnp.stack(chunk, 1) if chunk else no_ids,
        length=jnp.stack(length, 1) if length else jnp.zeros((b, 1), jnp.int32),
        cell_ids=jnp.concatenate(cell_ids, 1) if cell_ids else jnp.zeros((b, 1), jnp.int32),
        present=jnp.stack(present, 1) if present else jnp.zeros((b, 1), bool),
    )


def _entry(batch: Batch, spec: ModalitySpec) -> Any:
    if spec.name not in batch:
        raise ValueError(
            f"the batch has no entry for modality {spec.name!r}; a sample without it needs "
            f"one that says so (present False or length 0). Entries: {sorted(batch)}"
        )
    return batch[spec.name]


def _check_size(spec: ModalitySpec, ids: Integer[AnyArray, "b l"], size: int) -> None:
    if ids.shape[1] != size:
        raise ValueError(f"modality {spec.name!r}: {ids.shape[1]} ids per sample, need {size}")


@flax.struct.dataclass
class Plan:
    """How many tokens of each modality of one sample are inputs and targets.

    Attributes:
      spans: the masked texts.
      span_inputs: [s] entries of the masked text that are inputs: all of them or none.
      window_start, window_size: [s] part of the text's target that is predicted, in entries; t
        entries fill t - 1 slots, because each entry is predicted from the one before.
      cell_inputs, cell_targets: [g] number of input cells, and of target cells, which come next in
        the order of `place`.
    """

    spans: span_targets.Spans
    span_inputs: Int[Array, "s"]
    window_start: Int[Array, "s"]
    window_size: Int[Array, "s"]
    cell_inputs: Int[Array, "g"]
    cell_targets: Int[Array, "g"]


Place = Callable[[Int[Array, "n"], Int[Array, "n"]], Int[Array, "n"]]


def input_slots(
    plan: Plan, sample: Sample, layout: Layout, num_inputs: int, place: Place
) -> InputTokens:
    """Fill the input slots: texts first, then cells, then nothing.

    Args:
      place: (row in `layout.cells`, rank) -> cell, a bijection in rank for every row.
    """
    slot = jnp.arange(num_inputs)
    row, entry, num_spans = _locate(slot, plan.span_inputs)
    cell_row, rank, num_cells = _locate(slot - num_spans, plan.cell_inputs)
    first = jnp.asarray(layout.first_sentinel)
    text_id = span_targets.input_entry(plan.spans, sample.ids, first, row, entry)
    cell = place(cell_row, rank)
    is_text = slot < num_spans
    valid = slot < num_spans + num_cells
    return InputTokens(
        modality=_masked(
            valid, is_text, jnp.asarray(layout.spans)[row], jnp.asarray(layout.cells)[cell_row]
        ),
        position=_masked(valid, is_text, entry, cell),
        id=_masked(valid, is_text, text_id, _cell_id(sample, layout, cell_row, cell)),
        valid=valid,
        packed=True,
    )


def target_slots(
    plan: Plan, sample: Sample, layout: Layout, num_targets: int, place: Place
) -> TargetTokens:
    """Fill the target slots: texts first (shifted by one), then cells, then nothing."""
    slot = jnp.arange(num_targets)
    row, position, num_spans = _locate(slot, jnp.maximum(plan.window_size - 1, 0))
    cell_row, rank, num_cells = _locate(slot - num_spans, plan.cell_targets)
    entry = plan.window_start[row] + position
    first = jnp.asarray(layout.first_sentinel)
    input_id = span_targets.target_entry(plan.spans, sample.ids, first, row, entry)
    text_id = span_targets.target_entry(plan.spans, sample.ids, first, row, entry + 1)
    cell = place(cell_row, plan.cell_inputs[cell_row] + rank)
    is_text = slot < num_spans
    valid = slot < num_spans + num_cells
    return TargetTokens(
        modality=_masked(
            valid, is_text, jnp.asarray(layout.spans)[row], jnp.asarray(layout.cells)[cell_row]
        ),
        position=_masked(valid, is_text, position, cell),
        input_id=_masked(valid, is_text, input_id, 0),
        id=_masked(valid, is_text, text_id, _cell_id(sample, layout, cell_row, cell)),
        valid=valid,
        order=_masked(valid, is_text, position, 0),
    )


def _locate(
    slot: Int[Array, "n"], counts: Int[Array, "r"]
) -> tuple[Int[Array, "n"], Int[Array, "n"], Int[Array, ""]]:
    """Row that owns each slot when rows take `counts` slots one after the other, and rank in it."""
    end = jnp.cumsum(counts)
    row = jnp.sum(slot[:, None] >= end[None, :], axis=1)
    row = jnp.minimum(row, len(counts) - 1)
    rank = jnp.clip(slot - (end - counts)[row], 0, jnp.maximum(counts[row] - 1, 0))
    return row, rank, end[-1]


def _masked(
    valid: Bool[Array, "n"],
    is_text: Bool[Array, "n"],
    text_value: Int[Array, "n"],
    cell_value: Int[Array, "n"] | int,
) -> Int[Array, "n"]:
    return jnp.where(valid, jnp.where(is_text, text_value, cell_value), 0).astype(jnp.int32)


def _cell_id(
    sample: Sample, layout: Layout, row: Int[Array, "n"], cell: Int[Array, "n"]
) -> Int[Array, "n"]:
    offset = jnp.asarray(layout.offsets)[row]
    return jnp.where(offset < 0, 0, sample.cell_ids[jnp.maximum(offset, 0) + cell])
