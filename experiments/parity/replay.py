"""Replay recorded runs of the published sampler and set ours beside every recorded quantity."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.parity import published_sampler
from experiments.parity.quantity import Quantity
from experiments.parity.recorded import Case, below
from fourm_jax.contracts import TokenBatch
from fourm_jax.generate import chain, trunk
from fourm_jax.generate import state as states
from fourm_jax.generate.schedule import Step
from fourm_jax.generate.state import State
from fourm_jax.models.fourm import FourM
from fourm_jax.ops import sampling


def replay(case: Case, model: FourM, params: Any) -> Iterator[Quantity]:
    """Everything recorded of a case: final tokens running freely, logits step by step."""
    state = published_sampler.read_state(case.mod_dict, model.modalities)
    done = _run(case, model, params, state)
    yield from _final(case, model, done)
    yield from _final_masks(case, model, done)
    yield from _grid_steps(case, model, params, state, done)
    if "ar_last_logits" in case.outputs:
        yield _sequence_logits(case, model, params, state, done)


def _run(case: Case, model: FourM, params: Any, state: State) -> State:
    orders: dict[str, list[np.ndarray]] = {}
    for number, step in case.passes():
        if step.scheme == "roar":
            orders.setdefault(step.target, []).append(case.outputs[f"step{number}/mod_pos"])
    max_new, end_ids = published_sampler.read_limits(case.mod_dict, model.modalities)
    return chain.run(
        model,
        params,
        state,
        case.steps,
        keys=chain.row_keys(0, jnp.arange(state.batch_size)),
        sampling=case.sampling,
        conditions=case.conditions,
        orders={n: jnp.asarray(np.concatenate(parts, axis=1)) for n, parts in orders.items()},
        max_new=max_new,
        end_ids=end_ids,
        vocabulary=case.vocabulary,
    )


def _final(case: Case, model: FourM, done: State) -> Iterator[Quantity]:
    """Tokens of every modality in the final mod dict, padded with -1."""
    skipped = not_generated(case, model)
    for key in case.outputs:
        if not key.startswith("final/") or not key.endswith("/tensor"):
            continue
        name = key.split("/")[1]
        if name in skipped:
            continue
        tensor = case.outputs[key]
        mask = ~case.outputs[f"final/{name}/input_mask"]
        if case.conditions:
            mask = np.ones_like(mask)  # a finished target leaves the unconditional dictionary
        known = np.asarray(done.known[name])
        width = max(int(used.sum(axis=1).max()) for used in (known, mask))
        yield Quantity(
            f"final/{name}",
            _rows(np.asarray(done.ids[name]), known, width),
            _rows(tensor.reshape(mask.shape), mask, width),
        )


def _final_masks(case: Case, model: FourM, done: State) -> Iterator[Quantity]:
    """Masks of the final mod dict, True = not used; those of conditions stay as they were.

    A generated text is input *and* target as far as it goes (its attention entries are zeros). A
    finished target of multi-guidance joins the conditions: MaskGIT hides it from the unconditional
    dictionary on both sides; ROAR leaves its conditional entry as if nothing had been written.
    """
    schemes = {step.target: step.scheme for step in case.steps}
    names = {key.split("/")[1] for key in case.outputs if key.startswith("final/")}
    for name in sorted(names):
        known, scheme = np.asarray(done.known.get(name)), schemes.get(name)
        if scheme is None:
            found = case.mod_dict[name]
        elif scheme == "autoregressive":
            shown = known[:, : known.sum(axis=1).max()]
            found = {
                "input_mask": ~shown,
                "target_mask": ~shown,
                "decoder_attention_mask": np.zeros_like(shown),
            }
        elif case.conditions and name != case.steps[-1].target:
            found = {
                "input_mask": np.ones_like(known),
                "target_mask": np.full_like(known, scheme == "maskgit"),
            }
        else:
            found = {"input_mask": ~known, "target_mask": known}
        for field in ("input_mask", "target_mask", "decoder_attention_mask"):
            key = f"final/{name}/{field}"
            if key in case.outputs and field in found:
                yield Quantity(key, np.asarray(found[field]), case.outputs[key])


def not_generated(case: Case, model: FourM) -> set[str]:
    """Modalities of the final mod dict that only repeat a condition.

    Vectors are never generated. Multi-guidance drops its conditions from the final dictionary,
    but for those that it made itself.
    """
    written = {step.target for step in case.steps}
    names = {key.split("/")[1] for key in case.outputs if key.startswith("final/")}
    kinds = {n: model.modalities[states.index_of(model.modalities, n)].kind for n in names}
    return {
        name
        for name, kind in kinds.items()
        if kind == "embedding" or (case.conditions and name not in written)
    }


def _rows(ids: np.ndarray, mask: np.ndarray, width: int) -> np.ndarray:
    rows = np.full((len(ids), width), -1, np.int64)
    for row, values, used in zip(rows, ids, mask, strict=True):
        row[: used.sum()] = values[used]
    return rows


def _grid_steps(
    case: Case, model: FourM, params: Any, state: State, done: State
) -> Iterator[Quantity]:
    """Logits of every pass, from the tokens that were recorded before it."""
    groups, current = case.conditions, None
    for number, step in case.passes():
        if current != step.target:
            if groups and current:
                groups = (*groups, (current,))
            # Sequences in between come from the free run, which was compared already.
            for name in _between(case.steps, current, step.target):
                state = state.with_tokens(name, done.ids[name], done.known[name])
            before, current = state, step.target
        recorded = below(case.outputs, f"step{number}")
        positions = recorded["mod_pos"]
        yield Quantity(f"step{number}/mod_pos", _asked(state, step, positions), positions)
        views, guidance, weights = _views(case, model, step, state, before, groups)
        places = [positions] * len(views)
        if groups and step.scheme == "roar":
            first = next(n for n, other in case.passes() if other.target == step.target)
            start = case.outputs[f"step{first}/mod_pos"][:, : positions.shape[1]]
            places = [positions] + [start] * (len(views) - 1)
        logits = _logits(model, params, step.target, views, places)
        for j, view in enumerate(guidance):
            expected = recorded[f"raw_logits{j}"]
            found = logits[view][:, : expected.shape[1]]
            yield Quantity(f"step{number}/raw_logits{j}", found, expected)
        guided = np.asarray(sampling.guide(jnp.asarray(logits), jnp.asarray(weights)))
        expected = recorded["guided_logits"]
        yield Quantity(f"step{number}/guided_logits", guided[:, : expected.shape[1]], expected)
        ids, probs = _sample(case, step, guided)
        gaps = _logits_of(guided, ids) - _logits_of(guided, recorded["samples"])
        yield Quantity(f"step{number}/samples", ids, recorded["samples"], gaps=gaps)
        yield Quantity(f"step{number}/probs", probs, recorded["probs"])
        if step.scheme == "maskgit":
            for name, found, expected in _kept(step, recorded, ids, probs):
                yield Quantity(f"step{number}/{name}", found, expected)
        state = _write(state, step.target, recorded)


def _asked(state: State, step: Step, recorded: np.ndarray) -> np.ndarray:
    """Positions that a pass asks for: MaskGIT all that are left, ROAR the next of its order.

    The order was drawn at random there, so that here it is only held to what an order must be.
    """
    left = ~np.asarray(state.known[step.target])
    if step.scheme == "maskgit":
        return np.nonzero(left)[1].reshape(len(left), -1)
    orders = [
        [place for place in dict.fromkeys(row.tolist()) if free[place]]
        for row, free in zip(recorded, left, strict=True)
    ]
    return np.array([order[: step.num_tokens] for order in orders])


def _logits_of(logits: np.ndarray, ids: np.ndarray) -> np.ndarray:
    return np.take_along_axis(logits, ids[..., None].astype(np.int64), axis=-1)[..., 0]


def _kept(
    step: Step, recorded: Mapping[str, np.ndarray], ids: np.ndarray, probs: np.ndarray
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Slots, positions and ids that a MaskGIT step keeps, in the order of the slots."""
    mask = sampling.keep_most_confident(
        jnp.asarray(probs), jnp.ones(probs.shape, bool), step.num_tokens
    )
    slots = np.nonzero(np.asarray(mask))[1].reshape(len(ids), -1)
    order = np.argsort(recorded["top_pos"], axis=1)
    found = {
        "top_pos": np.take_along_axis(recorded["mod_pos"], slots, axis=1),
        "top_samples": np.take_along_axis(ids, slots, axis=1),
        "top_indices": slots,
    }
    for name, value in found.items():
        if name in recorded:
            yield name, value, np.take_along_axis(recorded[name], order, axis=1)


def _between(steps: Sequence[Step], first: str | None, last: str) -> list[str]:
    """Targets of a schedule after `first` (None: from the start) and before `last`."""
    names = list(dict.fromkeys(step.target for step in steps))
    return names[names.index(first) + 1 if first else 0 : names.index(last)]


def _views(
    case: Case,
    model: FourM,
    step: Step,
    state: State,
    before: State,
    groups: Sequence[Sequence[str]],
) -> tuple[list[State], list[int], np.ndarray]:
    """Views with the unconditional one first, their order in the recording, and weights."""
    specs = model.modalities
    if groups:
        everything = [name for group in groups for name in group]
        seen = [(), *groups]
        views = [
            states.hide(
                before.with_tokens(step.target, before.ids[step.target], before.known[step.target])
                if step.scheme == "roar" and number
                else state,
                [name for name in everything if name not in group],
                specs=specs,
                leave_trace=False,
            )
            for number, group in enumerate(seen)
        ]
        return views, [*range(1, len(views)), 0], np.asarray(step.guidance, np.float32)
    guided = [name for name in step.guided if name in state.ids]
    if step.guidance == 1 or not guided:
        return [state], [0], np.zeros(0, np.float32)
    hidden = states.hide(state, guided, specs=specs, vocabulary=case.vocabulary)
    return [hidden, state], [1, 0], np.asarray([step.guidance], np.float32)


def _logits(
    model: FourM,
    params: Any,
    target: str,
    views: Sequence[State],
    places: Sequence[np.ndarray],
) -> np.ndarray:
    """Logits [views, b, n, V] at recorded positions, padded to one shape for all passes."""
    index = states.index_of(model.modalities, target)
    width = model.modalities[index].num_tokens
    targets = []
    for place in places:
        padding = ((0, 0), (0, width - place.shape[1]))
        valid = jnp.pad(jnp.ones(place.shape, bool), padding)
        targets.append(states.parallel_targets(index, jnp.asarray(np.pad(place, padding)), valid))
    tokens = states.token_batch(views, targets, model.modalities)
    logits = np.asarray(_apply(model, params, tokens, target))
    return logits.reshape(len(views), -1, *logits.shape[1:])[:, :, : places[0].shape[1]]


@functools.partial(jax.jit, static_argnames=("model", "target"))
def _apply(model: FourM, params: Any, tokens: TokenBatch, target: str) -> jax.Array:
    return trunk.tokens_to_logits(model, params, target)(tokens)


def _sample(case: Case, step: Step, guided: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    options = case.sampling
    ids, probs = sampling.sample(
        jnp.zeros(guided.shape[:2]),
        jnp.asarray(guided),
        step.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        draw=options.draw,
        as_published=options.as_published,
    )
    return np.asarray(ids), np.asarray(probs)


def _write(state: State, name: str, recorded: Mapping[str, np.ndarray]) -> State:
    """State after a pass: what was written where, as recorded."""
    positions = recorded.get("top_pos", recorded["mod_pos"])
    samples = recorded.get("top_samples", recorded["samples"])
    ids, known = np.array(state.ids[name]), np.array(state.known[name])
    rows = np.arange(len(ids))[:, None]
    ids[rows, positions], known[rows, positions] = samples, True
    return state.with_tokens(name, jnp.asarray(ids), jnp.asarray(known))


def _sequence_logits(case: Case, model: FourM, params: Any, state: State, done: State) -> Quantity:
    """Last-position logits of every decoder pass, teacher-forced with the recorded choices."""
    recorded, found, at = case.outputs["ar_last_logits"], [], 0
    for step in case.steps:
        if step.scheme != "autoregressive":
            state = state.with_tokens(step.target, done.ids[step.target], done.known[step.target])
            continue
        views, order, weights = _views(case, model, step, state, state, ())
        tokens, used = _choices(case, step, recorded[:, at:], order, weights)
        index = states.index_of(model.modalities, step.target)
        targets = states.sequence_targets(
            index, jnp.asarray(tokens), jnp.full(len(tokens), tokens.shape[1])
        )
        batch = states.token_batch(views, [targets] * len(views), model.modalities)
        logits = np.asarray(_apply(model, params, batch, step.target))
        logits = logits.reshape(len(views), len(tokens), *logits.shape[1:])
        found.append(
            np.stack([logits[v] for v in order], axis=2).reshape(len(tokens), -1, logits.shape[-1])
        )
        at += used
        state = state.with_tokens(step.target, done.ids[step.target], done.known[step.target])
    return Quantity("ar_last_logits", np.concatenate(found, axis=1), recorded)


def _choices(
    case: Case, step: Step, recorded: np.ndarray, order: Sequence[int], weights: np.ndarray
) -> tuple[np.ndarray, int]:
    """Tokens [b, passes + 1] that the recorded logits led to, and how many logits they used."""
    entry = case.mod_dict[step.target]
    targets = np.asarray(entry["tensor"])[0][~np.asarray(entry["target_mask"], bool)[0]]
    passes = recorded.shape[1] // len(order)
    logits = recorded[:, : passes * len(order)].reshape(len(recorded), passes, len(order), -1)
    views = jnp.asarray(np.moveaxis(logits, 2, 0)[np.argsort(order)])
    ids, _ = _sample(case, step, np.asarray(sampling.guide(views, jnp.asarray(weights))))
    ended = (np.cumsum(ids == targets[-1], axis=1) > 0).all(axis=0)
    num = int(np.argmax(ended)) + 1 if ended.any() else passes
    num = min(num, len(targets))
    tokens = np.concatenate([np.full((len(ids), 1), targets[0]), ids[:, :num]], axis=1)
    return tokens, num * len(order)
