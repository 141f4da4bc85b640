"""masking/deterministic.json: masking decisions, given the random draws of the published code.

Distributions (stats_*.json, of masks of the texts in pool_*.json) are in `masking_statistics`.
"""

import functools
import json
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from experiments.parity import masking_cases, masking_statistics
from experiments.parity import quantity as quantities
from experiments.parity import text as text_cases
from experiments.parity.quantity import Quantity
from fourm_jax.contracts import Batch, GridEntry
from fourm_jax.masking import budgets, slots, span_targets
from fourm_jax.masking import sample as masking
from fourm_jax.modalities import registry
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.modalities.vocabulary import PUBLISHED
from fourm_jax.ops import attention

COMMENT = "_comment"
UNLIMITED = 1 << 20
VECTORS = -1  # first sentinel of a list of vectors: there is none
WIDTH = 304  # of padded texts; longer ones are padded to a multiple


def cases(folder: pathlib.Path) -> Iterator[tuple[str, Iterator[Quantity]]]:
    """One case per part of the recording, and one per file of statistics."""
    text = functools.cache(lambda: text_cases.tokenizer(folder.parent))
    for path in sorted(folder.iterdir()):
        pair = re.fullmatch(r"(stats|pool)_(.*\.json)", path.name)
        if path.name == "deterministic.json":
            yield from _parts(json.loads(path.read_text()), text)
        elif pair and pair[1] == "stats":
            yield path.stem, masking_statistics.check(path, text)
        elif not pair or not (folder / f"stats_{pair[2]}").exists():
            yield path.name, quantities.unknown(["(file)"])


def _parts(
    recorded: Mapping[str, Any], text: masking_cases.LoadText
) -> Iterator[tuple[str, Iterator[Quantity]]]:
    for name in recorded:
        if name not in masking_cases.PARTS and not name.endswith(COMMENT):
            yield name, quantities.unknown(["(part)"])
    for name, entries in masking_cases.convert(recorded, text).items():
        yield name, CHECKS[name](entries)


def spans(entries: Sequence[Mapping[str, Any]]) -> Iterator[Quantity]:
    """Masked tokens become sentinels and targets."""
    shown, asked = [], []
    for case in entries:  # an empty text cannot occur here: every text has its [EOS]
        lists = token_lists(case["sequence"], case["masked"])
        shown.append(lists[0] if case["sequence"] else case["input"])
        asked.append(lists[1] if case["sequence"] else case["target"])
    yield Quantity("input", shown, [case["input"] for case in entries])
    yield Quantity("target", asked, [case["target"] for case in entries])


def chunk_spans(entries: Sequence[Mapping[str, Any]]) -> Iterator[Quantity]:
    """Masked chunks become sentinels and targets."""
    lists = []
    for case in entries:
        ids = [i for chunk in case["chunks"] for i in chunk]
        masked = [m for m, chunk in zip(case["masked"], case["chunks"], strict=True) for _ in chunk]
        lists.append(token_lists(ids, masked))
    yield Quantity("input", [shown for shown, _ in lists], [case["input"] for case in entries])
    yield Quantity("target", [asked for _, asked in lists], [case["target"] for case in entries])


def texts(entries: Sequence[Mapping[str, Any]]) -> Iterator[Quantity]:
    """Texts are cut to their budgets at sentinels, one of which is drawn."""
    shown, asked, choices = [], [], []
    for case in entries:
        budget = UNLIMITED if case["target_budget"] is None else case["target_budget"]
        inputs, targets = token_lists(case["ids"], case["masked"], budget, case["chosen"])
        shown.append(inputs if case["input_budget"] else [])
        asked.append(targets)
        masked = jnp.array(case["masked"], bool)[None]
        found = span_targets.find_spans(masked, jnp.array([masked.size]))
        drawn = case["num_choices"] is not None
        choices.append(max(1, int(found.run[0, -1])) if drawn else None)
    yield Quantity("inputs", shown, [case["inputs"] for case in entries])
    yield Quantity("targets", asked, [case["targets"] for case in entries])
    yield Quantity("sentinel_choices", choices, [case["num_choices"] for case in entries])


def vectors(entries: Sequence[Mapping[str, Any]]) -> Iterator[Quantity]:
    """Masked spans of vectors become one zero vector each."""
    shown = []
    for case in entries:
        index = list(range(1, len(case["masked"]) + 1))
        inputs, _ = token_lists(index, case["masked"], first_sentinel=VECTORS)
        shown.append(inputs if case["budget"] else [])
    yield Quantity("inputs", shown, [case["inputs"] for case in entries])


def token_budgets(entries: Sequence[Mapping[str, Any]]) -> Iterator[Quantity]:
    """Budgets follow the Dirichlet draws."""
    found: dict[str, list[np.ndarray]] = {"input": [], "target": []}
    for case in entries:
        most, is_image = np.array(case["max_tokens"]), np.array(case["is_img"])
        for side in ("input", "target"):
            (_, share), *rest = case[f"{side}_draws"]
            extras = jnp.array([i for _, choices in rest for i in choices], jnp.int32)
            capacity = most - is_image * found["input"][-1] if side == "target" else most
            num_tokens = jnp.array(case["num_tokens"])
            split = budgets.split(jnp.array(share, jnp.float32), num_tokens, extras)
            found[side].append(np.minimum(np.asarray(split), capacity))
    for side, values in found.items():
        expected = [case[f"{side}_budget"] for case in entries]
        yield Quantity(f"{side}_budget", [value.tolist() for value in values], expected)


def grids(entries: Sequence[Mapping[str, Any]]) -> Iterator[Quantity]:
    """Grids take inputs first and targets next, in random order."""
    found = [grid_positions(case["order"], *case["budgets"]) for case in entries]
    yield Quantity("inputs", [shown for shown, _ in found], [case["inputs"] for case in entries])
    yield Quantity("targets", [asked for _, asked in found], [case["targets"] for case in entries])


def visibility(entries: Sequence[Mapping[str, Any]]) -> Iterator[Quantity]:
    """Row i of the published mask sees as many slots as its compressed row has summed up to.

    A TokenBatch says that with one order per slot; in general it takes two, as a query and as a
    key.
    """
    found = []
    for case in entries:
        place = np.arange(len(case["compressed"]))[None]
        reach = place if case["decoder_causal_mask"] else np.cumsum(case["compressed"])[None] - 1
        segment = np.array(case["mod_mask"])[None] * case["decoder_sep_mask"]
        segment = segment - segment.min()  # here padding (-1) is a segment like others
        segments, orders = jnp.asarray(segment), (jnp.asarray(reach), jnp.asarray(place))
        visible = attention.Visibility(segments, segments, *orders)
        sees = visible.mask()[0, 0]
        found.append((~np.asarray(sees)).tolist())
    expected = [np.array(case["masked"], bool).tolist() for case in entries]
    yield Quantity("masked", found, expected)


def transfer(case: Mapping[str, Any]) -> Iterator[Quantity]:
    """Whole modalities as inputs, whole modalities as targets."""
    specs = registry.resolve("fourm", [*case["inputs"], *case["outputs"]])
    batch: Batch = {}
    here = np.array([True])
    for spec in specs:
        if spec.kind == "sequence":
            given = case["ids"][spec.name]
            ids = np.zeros((1, spec.max_tokens), np.int32)
            ids[0, : len(given)] = given
            chunk = np.arange(spec.max_tokens)[None]
            batch[spec.name] = {"ids": ids, "length": np.array([len(given)]), "chunk": chunk}
        elif spec.kind == "pixels":
            batch[spec.name] = {"pixels": np.zeros((1, 2, 2, 3), np.uint8), "present": here}
        else:
            batch[spec.name] = {"ids": np.zeros((1, spec.num_tokens), np.int32), "present": here}
    tokens = masking.fixed_tokens(
        batch, specs=specs, inputs=case["inputs"], outputs=case["outputs"]
    )
    inputs, targets = (
        jax.tree.map(lambda x: np.asarray(x[0]), t) for t in (tokens.inputs, tokens.targets)
    )
    for i, spec in enumerate(specs):
        is_text = spec.kind == "sequence"
        if spec.name in case["inputs"]:
            chosen = inputs.valid & (inputs.modality == i)
            found = (inputs.id if is_text else inputs.position)[chosen]
            yield Quantity(f"{spec.name}/shown", found.tolist(), case["shown"][spec.name])
        else:
            chosen = targets.valid & (targets.modality == i)
            found = targets.position[chosen].tolist()
            if is_text:  # the first entry is only ever an input, the last one only a target
                found = [*targets.input_id[chosen][:1].tolist(), *targets.id[chosen].tolist()]
            yield Quantity(f"{spec.name}/asked", found, case["asked"][spec.name])


CHECKS: Mapping[str, Callable[[Any], Iterator[Quantity]]] = {
    "simple_span_masking": spans,
    "chunk_span_masking": chunk_spans,
    "sequence_mask": texts,
    "sequence_emb_mask_span": vectors,
    "token_budgets": token_budgets,
    "image_mask": grids,
    "adapt_decoder_attention_mask": visibility,
    "transfer_masking": transfer,
}


def token_lists(
    ids: Sequence[int],
    masked: Sequence[int],
    budget: int = UNLIMITED,
    chosen: int = 0,
    first_sentinel: int | None = None,
) -> tuple[list[int], list[int]]:
    """Masked text and (window of the) target as lists of ids."""
    size = WIDTH * -(-max(len(ids), 1) // WIDTH)  # few compilations
    first = PUBLISHED.sentinel_id(1) if first_sentinel is None else first_sentinel
    pad = np.zeros(size, np.int32)
    pad[: len(ids)] = ids
    mask = np.zeros(size, bool)
    mask[: len(ids)] = masked
    numbers = [jnp.array(number, jnp.int32) for number in (len(ids), budget, chosen, first)]
    shown, num_shown, asked, num_asked = _entries(jnp.asarray(pad), jnp.asarray(mask), *numbers)
    return np.asarray(shown)[:num_shown].tolist(), np.asarray(asked)[:num_asked].tolist()


@jax.jit
def _entries(
    ids: Int[Array, "l"],
    masked: Bool[Array, "l"],
    length: Int[Array, ""],
    budget: Int[Array, ""],
    chosen: Int[Array, ""],
    first_sentinel: Int[Array, ""],
) -> tuple[Int[Array, "p"], Int[Array, ""], Int[Array, "p"], Int[Array, ""]]:
    """Both token lists of one text, padded."""
    found = span_targets.find_spans(masked[None], length[None])
    start, size = span_targets.choose_window(found, budget[None], chosen[None])
    place = jnp.arange(2 * len(ids) + 1)
    row = jnp.zeros_like(place)
    first = first_sentinel[None]
    shown = span_targets.input_entry(found, ids[None], first, row, place)
    asked = span_targets.target_entry(found, ids[None], first, row, place + start[0])
    return shown, found.num_inputs[0], asked, size[0]


def grid_positions(
    order: Sequence[int], num_shown: int, num_asked: int | None
) -> tuple[list[int], list[int]]:
    """Input cells and target cells; without a budget of targets, all other cells."""
    size = len(order)
    none = jnp.zeros(1, jnp.int32)
    spec = ModalitySpec(name="grid", kind="grid", vocab_size=1, grid=(1, size))
    layout = slots.layout([spec], ["grid"], ["grid"], PUBLISHED)
    entry: GridEntry = {"ids": np.zeros((1, size), np.int32), "present": np.array([True])}
    sample = jax.tree.map(lambda x: x[0], slots.stack({"grid": entry}, layout))
    plan = slots.Plan(
        span_targets.find_spans(jnp.zeros((1, 1), bool), none),
        none,
        none,
        none,
        jnp.array([num_shown]),
        jnp.array([size - num_shown if num_asked is None else num_asked]),
    )
    place = functools.partial(lambda order, row, rank: order[rank], jnp.asarray(order))
    sides = (
        slots.input_slots(plan, sample, layout, size, place),
        slots.target_slots(plan, sample, layout, size, place),
    )
    shown, asked = (sorted(np.asarray(s.position)[np.asarray(s.valid)].tolist()) for s in sides)
    return shown, asked
