"""What is known of a sample while it is generated, and the TokenBatches made of it."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from fourm_jax import contracts
from fourm_jax.contracts import InputTokens, TargetTokens, TokenBatch
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.modalities.vocabulary import PUBLISHED, TextVocabulary
from fourm_jax.utils import hardware
from fourm_jax.utils.errors import unknown_value

Specs = tuple[ModalitySpec, ...]
Widths = tuple[tuple[str, int], ...]  # encoder slots by modality, hashable


@flax.struct.dataclass
class State:
    """Everything known so far; one entry per modality of the run, condition or target.

    A sequence is a list of visible tokens, which may hold sentinels ("more comes here"); one that
    is not generated yet is the single token [S_1]. Widths are static, and no wider than needed.

    Attributes:
      ids: [b, l] token ids by modality; for pixels 0, for embeddings 1 + index of the vector (0: a
        zero vector), as in `InputTokens`.
      known: [b, l] which slots the encoder sees.
      pixels, embeddings: content of the conditions that have no ids (see `TokenBatch`).
      variants: by branch of guidance ("1" is the first that sees conditions), tokens and known
        masks of modalities that are not what `ids` and `known` say there; as wide as those.
    """

    ids: dict[str, Int[Array, "b _l"]]  # _: modalities differ in length
    known: dict[str, Bool[Array, "b _l"]]
    pixels: dict[str, Array]
    embeddings: dict[str, Float[Array, "b _l _e"]]
    variants: dict[str, dict[str, tuple[Array, Array]]] = flax.struct.field(default_factory=dict)

    @property
    def batch_size(self) -> int:
        return next(iter(self.ids.values())).shape[0]

    def with_tokens(self, name: str, ids: Int[Array, "b l"], known: Bool[Array, "b l"]) -> "State":
        """Copy in which modality `name` holds these tokens."""
        ids_by_name, known_by_name = {**self.ids, name: ids}, {**self.known, name: known}
        return dataclasses.replace(self, ids=ids_by_name, known=known_by_name)


def index_of(specs: Specs, name: str) -> int:
    """Index of a modality in the model's tuple.

    Raises:
      ValueError: the model has no such modality.
    """
    names = [spec.name for spec in specs]
    if name not in names:
        raise ValueError(unknown_value("modality", name, names))
    return names.index(name)


def empty_tokens(
    spec: ModalitySpec, num_rows: int, vocabulary: TextVocabulary = PUBLISHED
) -> tuple[Int[Array, "b l"], Bool[Array, "b l"]]:
    """Ids and known mask of a modality of which nothing is known.

    A sequence is the single input token [S_1], as in the published sampler
    (docs/published.md#generation).
    """
    if spec.kind == "sequence":
        sentinel = vocabulary.sentinel_id(1)
        return jnp.full((num_rows, 1), sentinel, jnp.int32), jnp.ones((num_rows, 1), bool)
    shape = (num_rows, spec.num_tokens)
    return jnp.zeros(shape, jnp.int32), jnp.zeros(shape, bool)


def create(
    conditions: Mapping[str, Mapping[str, Array | np.ndarray]],
    targets: Iterable[str],
    *,
    specs: Specs,
    vocabulary: TextVocabulary = PUBLISHED,
) -> State:
    """Start from the conditions, with every other target unknown.

    Args:
      conditions: entries of the batch contract: {"ids", "length" | "present"}, {"pixels",
        "present"} or {"embeddings", "length"}; a grid may give "known" [b, l] instead of "present"
        (in-painting). A target given as a condition is completed, not replaced.
      targets: names to generate.

    Raises:
      ValueError: no condition and no target, an unknown modality, or unequal numbers of rows.
    """
    sizes = {name: len(next(iter(entry.values()))) for name, entry in conditions.items()}
    if len(set(sizes.values())) != 1:
        raise ValueError(f"conditions must have the same number of rows (at least one): {sizes}")
    num_rows = next(iter(sizes.values()))
    state = State(ids={}, known={}, pixels={}, embeddings={})
    for name, entry in conditions.items():
        spec = specs[index_of(specs, name)]
        for content in ("pixels", "embeddings"):
            if content in entry:
                arrays = {**getattr(state, content), name: jnp.asarray(entry[content])}
                state = dataclasses.replace(state, **{content: arrays})
        state = state.with_tokens(name, *_entry_tokens(spec, entry, num_rows))
    for name in targets:
        if name not in conditions:
            spec = specs[index_of(specs, name)]
            state = state.with_tokens(name, *empty_tokens(spec, num_rows, vocabulary))
    return state


def with_all_slots(
    state: State, specs: Specs, inputs: Iterable[str], vocabulary: TextVocabulary = PUBLISHED
) -> State:
    """The same, with all slots of every modality of `inputs`: states of other conditions and
    targets have the same shapes, and share compiled programs. Lists of vectors stay as they are."""
    num_rows = state.batch_size
    for spec in specs:
        if spec.kind == "embedding" or (spec.name not in state.ids and spec.name not in inputs):
            continue
        if spec.name not in state.ids:
            ids = jnp.zeros((num_rows, spec.num_tokens), jnp.int32)
            state = state.with_tokens(spec.name, ids, jnp.zeros(ids.shape, bool))
        elif spec.kind == "sequence":
            ids, known = state.ids[spec.name], state.known[spec.name]
            spare = ((0, 0), (0, max(spec.max_tokens - ids.shape[1], 0)))
            ids = jnp.pad(ids, spare, constant_values=vocabulary.pad_id)
            state = state.with_tokens(spec.name, ids, jnp.pad(known, spare))
    return dataclasses.replace(state, pixels=_blank(specs, "pixels", num_rows) | state.pixels)


def _entry_tokens(
    spec: ModalitySpec, entry: Mapping[str, Array | np.ndarray], num_rows: int
) -> tuple[Int[Array, "b l"], Bool[Array, "b l"]]:
    """Ids and known mask of one entry of the batch contract."""
    if "ids" in entry:
        ids = jnp.asarray(entry["ids"]).astype(jnp.int32).reshape(num_rows, -1)
    elif "embeddings" in entry:
        width = entry["embeddings"].shape[1]
        ids = jnp.broadcast_to(1 + jnp.arange(width, dtype=jnp.int32), (num_rows, width))
    else:
        ids = jnp.zeros((num_rows, spec.num_tokens), jnp.int32)
    if "known" in entry:
        return ids, jnp.asarray(entry["known"], bool).reshape(ids.shape)
    if "length" in entry:
        return ids, jnp.arange(ids.shape[1]) < jnp.asarray(entry["length"])[:, None]
    present = jnp.asarray(entry.get("present", jnp.ones(num_rows)), bool)
    return ids, jnp.broadcast_to(present[:, None], ids.shape)


def hide(
    state: State,
    names: Iterable[str],
    *,
    specs: Specs,
    leave_trace: bool = True,
    vocabulary: TextVocabulary = PUBLISHED,
) -> State:
    """The state without these conditions: what the unconditional pass of guidance sees.

    Args:
      names: conditions to hide.
      leave_trace: as in the published classifier-free guidance a hidden sequence leaves [S_1] and a
        hidden list of vectors leaves one zero vector; images leave nothing. False: nothing is
        left of anything, as in the published multi-guidance.
    """
    ids, known = dict(state.ids), dict(state.known)
    for name in names:
        kind = specs[index_of(specs, name)].kind
        known[name] = jnp.zeros_like(known[name])
        if leave_trace and kind in ("sequence", "embedding"):
            known[name] = known[name].at[:, 0].set(True)
        if kind == "sequence":
            ids[name] = jnp.full_like(ids[name], vocabulary.sentinel_id(1))
        elif kind == "embedding":
            ids[name] = jnp.zeros_like(ids[name])
    return dataclasses.replace(state, ids=ids, known=known)


def in_branch(state: State, number: int) -> State:
    """The state as a branch of guidance sees it: with its variants in place."""
    for name, (ids, known) in state.variants.get(str(number), {}).items():
        state = state.with_tokens(name, ids, known)
    return state


def input_tokens(
    state: State, specs: Specs, widths: Widths = (), *, packed: bool = False
) -> InputTokens:
    """Slots of all modalities, in the model's order; unknown ones are not valid.

    Args:
      widths: by modality how many slots it gets, its known tokens first; that must be enough for
        them. Default: all slots, as they lie.
      packed: the valid slots of all modalities come first.
    """
    parts, limits, num_slots = [], dict(widths), 0
    for index, spec in enumerate(specs):
        if spec.name not in state.ids:
            continue
        known = state.known[spec.name]
        position = jnp.arange(known.shape[1], dtype=jnp.int32)
        if spec.kind in ("sequence", "embedding"):
            position = contracts.dense_positions(known)
        part = InputTokens(
            modality=jnp.full(known.shape, index, jnp.int32),
            position=jnp.broadcast_to(position, known.shape),
            id=state.ids[spec.name],
            valid=known,
        )
        width = limits.get(spec.name, known.shape[1])
        num_slots += width
        whole = packed or width == known.shape[1]
        parts.append(part if whole else _valid_first(part, width))
    tokens = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=1), *parts)
    if packed:
        return dataclasses.replace(_valid_first(tokens, num_slots), packed=True)
    return tokens


def _valid_first(tokens: InputTokens, width: int) -> InputTokens:
    """The first `width` slots once the valid ones come first, otherwise in their order."""
    slots = jnp.argsort(~tokens.valid, axis=1, stable=True)[:, :width]
    return jax.tree.map(lambda leaf: jnp.take_along_axis(leaf, slots, axis=1), tokens)


def parallel_targets(
    index: int, position: Int[Array, "b m"], valid: Bool[Array, "b m"]
) -> TargetTokens:
    """Targets that are predicted at once: mask tokens that see each other, the valid ones first."""
    zeros = jnp.zeros(position.shape, jnp.int32)
    return TargetTokens(
        modality=jnp.full(position.shape, index, jnp.int32),
        position=position.astype(jnp.int32),
        input_id=zeros,
        id=zeros,
        valid=valid,
        order=zeros,
        packed=True,
    )


def sequence_targets(
    index: int, tokens: Int[Array, "b t"], length: Int[Array, "b"]
) -> TargetTokens:
    """Targets of a sequence, teacher-forced: slot i reads token i and predicts token i + 1.

    Args:
      tokens: starts with a sentinel.
      length: valid tokens per row, that first one included; so length - 1 slots are valid.
    """
    slots = jnp.broadcast_to(jnp.arange(tokens.shape[1] - 1), tokens[:, 1:].shape)
    return TargetTokens(
        modality=jnp.full(slots.shape, index, jnp.int32),
        position=slots,
        input_id=tokens[:, :-1],
        id=tokens[:, 1:],
        valid=slots < length[:, None] - 1,
        order=slots,
    )


def next_target(index: int, token: Int[Array, "g"], slot: Int[Array, ""]) -> TargetTokens:
    """The target behind `token`, which stands in `slot` of its sequence; its own id is open."""
    slots = jnp.broadcast_to(slot, (len(token), 1))
    return TargetTokens(
        modality=jnp.full_like(slots, index),
        position=slots,
        input_id=token[:, None],
        id=jnp.zeros_like(slots),
        valid=jnp.ones_like(slots, bool),
        order=slots,
    )


def token_batch(
    branches: Sequence[State],
    targets: Sequence[TargetTokens],
    specs: Specs,
    widths: Widths = (),
) -> TokenBatch:
    """Stack several branches of the same samples along the batch axis: [branches · b, ...].

    `widths` are those of `input_tokens`; inputs are packed on accelerators, whose attention needs
    lengths then and no mask of every query and key.

    Image and vector modalities that the state does not hold get blank content, which no slot uses:
    the trunk wants an entry for each.
    """
    packed = hardware.platform() != "cpu"
    batches = [
        TokenBatch(
            inputs=input_tokens(branch, specs, widths, packed=packed),
            targets=target,
            pixels=_blank(specs, "pixels", branch.batch_size) | branch.pixels,
            embeddings=_blank(specs, "embedding", branch.batch_size) | branch.embeddings,
        )
        for branch, target in zip(branches, targets, strict=True)
    ]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *batches)


def _blank(specs: Specs, kind: str, num_rows: int) -> dict[str, Array]:
    """Zeros for every modality of a kind without ids."""
    blank = {}
    for spec in specs:
        if spec.kind == kind == "pixels":
            blank[spec.name] = jnp.zeros((num_rows, *spec.image_shape), jnp.uint8)
        elif spec.kind == kind:
            blank[spec.name] = jnp.zeros((num_rows, 1, spec.embedding_dim))
    return blank
