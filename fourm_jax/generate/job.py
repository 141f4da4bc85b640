"""What one call of generation does, known and checked before its first pass."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Key

from fourm_jax.generate import chain, defaults, editing, fill_spans, results, schedule
from fourm_jax.generate import conditions as condition_entries
from fourm_jax.generate import guides as guide_lib
from fourm_jax.generate import state as states
from fourm_jax.generate.conditions import Entry
from fourm_jax.generate.grids import Sampling
from fourm_jax.generate.guides import Guide
from fourm_jax.generate.schedule import Step, Target
from fourm_jax.generate.state import State
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.modalities.vocabulary import TextVocabulary
from fourm_jax.models.fourm import FourM
from fourm_jax.tokenizers.base import SequenceTokenizer, Tokenizer, Tokenizers
from fourm_jax.tokenizers.missing import missing
from fourm_jax.tokenizers.trained import TrainedTokenizer
from fourm_jax.utils import plain_data
from fourm_jax.utils.errors import check_distinct, unknown_value

# Fields of `schedule.Target` that a plan by target may set.
PLAN_RULES: Mapping[str, plain_data.Rule] = {
    **dict.fromkeys(("scheme", "tokens", "temperatures"), plain_data.TEXT),
    "num_steps": plain_data.integer(1, 10**6),
    "temperature": plain_data.number(0, 1e6),
    "guidance": plain_data.number(-1e6, 1e6),
    "top_k": plain_data.number(0, 1e9),
    "top_p": plain_data.number(0, 1),
}
# Targets or steps in their order; or by target what differs from `generate.defaults`.
Plan = Sequence[Target] | Sequence[Step] | Mapping[str, Mapping[str, Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts:
    """What a generator is made of."""

    model: FourM
    tokenizers: Tokenizers
    vocabulary: TextVocabulary

    def spec(self, name: str) -> ModalitySpec:
        """Spec of a modality of this model."""
        return self.model.modalities[states.index_of(self.model.modalities, name)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Edit:
    """A grid of which a part is kept.

    Attributes:
      mask: pixels that are generated anew.
      ids: all tokens before.
    """

    mask: Bool[np.ndarray, "_b h w"]
    ids: Int[np.ndarray, "b l"]

    def blend(self, made: np.ndarray, spec: ModalitySpec, tokenizer: Tokenizer) -> np.ndarray:
        """What was made inside of the mask and, outside of it, the tokens before, decoded; several
        samples of a row follow each other."""
        old = tokenizer.decode(results.as_grid(spec, self.ids))
        old = np.repeat(old, len(made) // len(old), axis=0)
        mask = np.repeat(self.mask, len(made) // len(self.mask), axis=0)
        return editing.blend(old, made, mask, tokenizer.signal)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """One call of generation.

    Attributes:
      state: conditions and open targets, all rows.
      targets: in the order of generation.
      steps, filters: how, see `chain.iterate`.
      groups: conditions that are weighted against each other.
      drafts: targets that all groups see.
      edits: by target, of those that are changed in part.
      averaged: targets that are decoded from the average of their codes.
    """

    state: State
    targets: list[str]
    steps: list[Step]
    filters: Sampling | dict[str, Sampling]
    groups: tuple[tuple[str, ...], ...]
    drafts: tuple[str, ...]
    edits: Mapping[str, Edit]
    averaged: frozenset[str] = frozenset()


def check_names(parts: Parts, conditions: Iterable[str], targets: Iterable[str]) -> None:
    """Refuse conditions that the model does not read, and targets that it does not predict.

    Raises:
      ValueError: names the first one, and what is allowed; or a target that is there twice.
    """
    if isinstance(targets, str):
        raise ValueError(f"targets {targets!r}, allowed: a list of names, [{targets!r}]")
    for name in conditions:
        if name not in parts.model.inputs:
            raise ValueError(unknown_value("condition", name, parts.model.inputs))
    targets = tuple(targets)
    for name in targets:
        if name not in parts.model.outputs:
            raise ValueError(unknown_value("target", name, parts.model.outputs))
    check_distinct("target", targets)


def check_tokenizer(spec: ModalitySpec, tokenizer: Tokenizer | SequenceTokenizer) -> None:
    """Refuse a tokenizer of another kind, vocabulary or grid than the modality.

    The codes of a global vector are tokens of their own, those of a grid share positions.

    Raises:
      ValueError: says which of both has what.
    """
    if (spec.kind == "sequence") != isinstance(tokenizer, SequenceTokenizer):
        raise ValueError(
            f"tokenizer {spec.tokenizer!r} is a {type(tokenizer).__name__}: not for "
            f"{spec.kind} {spec.name!r}"
        )
    if isinstance(tokenizer, SequenceTokenizer):
        return
    card = tokenizer.card
    num_tokens = card.grid[0] * card.grid[1] * card.codes_per_position
    if card.vocab_size > spec.vocab_size or num_tokens != spec.num_tokens:
        raise ValueError(
            f"tokenizer {card.name!r} makes {num_tokens} tokens of {card.vocab_size} ids, "
            f"modality {spec.name!r} has {spec.num_tokens} of {spec.vocab_size}"
        )


def prepare(
    parts: Parts,
    conditions: Mapping[str, Any],
    targets: Sequence[str] | str,
    *,
    plan: Plan | None = None,
    changes: Mapping[str, Any],
    intermediate: Sequence[str] | None = None,
    guides: Sequence[Guide] = (),
    mask: Any = None,
) -> Job:
    """Check everything and encode the conditions; arguments as of `Generator.generate`.

    Args:
      changes: fields of the default plan's targets that differ; None: they do not.
    """
    _check_changes(changes, plan, guides)
    given = [*conditions, *(guide.name for guide in guides)]
    check_names(parts, given, ())
    if targets == "all":
        sources = {parts.spec(name).source or name for name in given}
        outputs = parts.model.outputs
        targets = [name for name in outputs if (parts.spec(name).source or name) not in sources]
    if not targets:
        raise ValueError(f"no target to generate, allowed: {sorted(parts.model.outputs)}")
    check_names(parts, (), targets)
    is_default = plan is None or isinstance(plan, Mapping)
    drafts: tuple[str, ...] = ()
    pulls = not guides or any(guide.weight > 0 for guide in guides)
    if intermediate is None and is_default and pulls:
        drafts = _drafts(parts, given, targets)
    intermediate = [*(intermediate or drafts)]
    check_names(parts, (), intermediate)
    rest = sorted({*targets} - {*intermediate}, key=lambda name: parts.spec(name).decoding_order)
    targets = [*intermediate, *rest]
    guide_lib.check(guides, conditions, targets)
    specs = {name: parts.spec(name) for name in given}
    entries = condition_entries.encode_all(conditions, specs, parts.tokenizers)
    entries, edits = _masked(parts, entries, targets, mask)
    _check_open(parts, entries, targets)
    state = _start(parts, entries, targets, guides)
    if plan is None or isinstance(plan, Mapping):
        check_plan(plan or {}, parts.model.outputs)
        chosen: Sequence[Target] | Sequence[Step] = [
            one
            for name in targets
            for one in default_plan(
                parts,
                state,
                [name],
                _table(parts, name, drafts, conditions),
                **{**({} if name in drafts else changes), **(plan or {}).get(name, {})},
            )
        ]
    else:
        chosen = plan
    steps, filters = _steps(chosen, conditions)
    for name in targets:
        if not isinstance(plan, Mapping | None) and name not in {one.target for one in steps}:
            raise ValueError(f"the plan has no step for target {name!r}")
    if guides:
        steps = guide_lib.weighted(steps, guides, drafts)
    return Job(
        state=state,
        targets=targets,
        steps=steps,
        filters=filters,
        groups=tuple((guide.name,) for guide in guides),
        drafts=drafts,
        edits=edits,
        averaged=frozenset(name for name in targets if _is_averaged(parts, name, entries, steps)),
    )


def _drafts(parts: Parts, conditions: Iterable[str], targets: Sequence[str]) -> tuple[str, ...]:
    """What a target wants to be generated before it, as far as the model can."""
    given = [parts.spec(name) for name in conditions]
    both = {*parts.model.inputs} & {*parts.model.outputs}
    wanted = [name for one in targets for name in defaults.drafts(parts.spec(one), given)]
    return tuple(name for name in dict.fromkeys(wanted) if name in both)


def _table(
    parts: Parts, name: str, drafts: Sequence[str], conditions: Iterable[str]
) -> Mapping[str, Target]:
    """The defaults of a target: of a draft, of what is painted over its drafts, or of others."""
    if name in drafts:
        return defaults.DRAFTS
    before = parts.spec(name).drafts
    return defaults.PAINTED if before and {*before} <= {*drafts, *conditions} else defaults.DEFAULTS


def _is_averaged(
    parts: Parts, name: str, entries: Mapping[str, Entry], steps: Sequence[Step]
) -> bool:
    """Whether a target is a continuous signal that one plain pass predicts as a whole."""
    tokenizer = parts.tokenizers.get(parts.spec(name).tokenizer)
    own = [step for step in steps if step.target == name]
    return (
        isinstance(tokenizer, Tokenizer)
        and tokenizer.signal.kind == "continuous"
        and name not in entries
        and len(own) == 1
        and own[0].temperature == 0
        and own[0].guidance == 1
    )


def check_plan(plan: Mapping[str, Mapping[str, Any]], targets: Iterable[str]) -> None:
    """Refuse a plan by target that names what there is not.

    Raises:
      ValueError: names the target or field, and what is allowed; a value out of range.
    """
    for name, fields in plan.items():
        if name not in targets:
            raise ValueError(unknown_value("target of the plan", name, targets))
        for field in fields:
            if field not in PLAN_RULES:
                what = f"field of the plan for {name!r}"
                raise ValueError(unknown_value(what, field, PLAN_RULES))
        plain_data.check(fields, PLAN_RULES, f"plan for {name!r}")


def default_plan(
    parts: Parts,
    state: State,
    targets: Iterable[str],
    table: Mapping[str, Target] = defaults.DEFAULTS,
    **changes: Any,
) -> list[Target]:
    """How targets are written where nobody says how, see `generate.defaults`."""
    plan = []
    for name in targets:
        spec, num_open = parts.spec(name), int((~state.known[name]).sum(axis=1).max())
        if spec.kind == "sequence" or num_open:
            specs = parts.model.modalities
            plan.append(defaults.target(spec, specs, num_open, table, **changes))
    return plan


def keys_of(
    seed: int | np.integer | Sequence[int], num_rows: int, num_samples: int
) -> Key[Array, "b·samples"]:
    """Keys of all rows and samples, see `chain.row_keys`.

    Raises:
      ValueError: a negative seed, or several that are not one per row; no sample.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples {num_samples}, allowed: at least 1")
    if isinstance(seed, int | np.integer):
        return chain.row_keys(int(seed), np.arange(num_rows), num_samples)
    if len(seed) != num_rows:
        raise ValueError(f"{len(seed)} seeds for {num_rows} rows, allowed: one, or one per row")
    return jnp.concatenate(
        [chain.row_keys(int(one), np.zeros(1, int), num_samples) for one in seed]
    )


def _check_changes(changes: Mapping[str, Any], plan: Plan | None, guides: Sequence[Guide]) -> None:
    """Refuse numbers that mean nothing, alone or beside what says the same otherwise."""
    for name, value in changes.items():
        if value is not None and not math.isfinite(value):
            raise ValueError(f"{name} {value}, allowed: finite numbers")
        if value is not None and not isinstance(plan, Mapping | None):
            raise ValueError(f"{name} {value} and a plan of all steps, allowed: one of both")
    if guides and changes.get("guidance") is not None:
        raise ValueError(
            f"guidance {changes['guidance']} and guides, allowed: one of both; each guide has its "
            "own weight"
        )
    for name, least in (("num_steps", 1), ("temperature", 0)):
        value = changes.get(name)
        if value is not None and value < least:
            raise ValueError(f"{name} {value}, allowed: from {least} on")


def _masked(
    parts: Parts, entries: Mapping[str, Entry], targets: Sequence[str], mask: Any
) -> tuple[dict[str, Entry], dict[str, Edit]]:
    """Entries without what is to be generated anew, in targets and in pixels of the same source."""
    done: dict[str, Entry] = dict(entries)
    edits: dict[str, Edit] = {}
    if mask is None:
        return done, edits
    grids = [name for name in targets if name in entries and parts.spec(name).kind == "grid"]
    if not grids:
        raise ValueError(f"a mask, but none of the targets {list(targets)} is a grid that is given")
    for name, one in editing.of_targets(mask, grids).items():
        spec = parts.spec(name)
        tokenizer = parts.tokenizers.get(spec.tokenizer)
        if not isinstance(tokenizer, TrainedTokenizer):
            raise ValueError(f"mask of {name!r}: {missing(spec, parts.tokenizers)}")
        patch = tokenizer.module.patch_size
        size = (spec.grid[0] * patch, spec.grid[1] * patch)
        pixels = editing.pixel_mask(one, spec, size)
        num_rows = len(entries[name]["ids"])
        if len(pixels) not in (1, num_rows):
            raise ValueError(
                f"mask of {name!r} for {len(pixels)} rows, allowed: one, or {num_rows} as given"
            )
        edits[name] = Edit(mask=pixels, ids=np.asarray(entries[name]["ids"]))
        done[name] = editing.keep(spec, entries[name], pixels)
        for other in entries:
            shows = parts.spec(other)
            if shows.kind == "pixels" and shows.source == spec.source:
                done[other] = editing.keep(shows, entries[other], pixels)
    return done, edits


def _check_open(parts: Parts, entries: Mapping[str, Entry], targets: Sequence[str]) -> None:
    """Refuse targets of which everything is given.

    Raises:
      ValueError: names the first one, and how a part of it is opened.
    """
    for name in targets:
        if name not in entries or "known" in entries[name]:
            continue
        if parts.spec(name).kind != "sequence":
            raise ValueError(
                f"{name!r} is a condition and a target: say with a mask what is generated anew"
            )
        ids = jnp.asarray(entries[name]["ids"])
        if not bool(fill_spans.is_sentinel(ids, parts.vocabulary).any()):
            raise ValueError(
                f"{name!r} is a condition and a target: say with ___ what is generated anew"
            )


def _start(
    parts: Parts, entries: Mapping[str, Entry], targets: Sequence[str], guides: Sequence[Guide]
) -> State:
    encoded = [
        (one, condition_entries.encode(parts.spec(one.name), one.value, parts.tokenizers))
        for one in guides
    ]
    sizes = [len(next(iter(e.values()))) for e in (*entries.values(), *(e for _, e in encoded))]
    num_rows = max(sizes, default=0)
    made = [(one.name, guide_lib.rows(one, entry, num_rows)) for one, entry in encoded]
    first = dict(reversed(made))
    model = parts.model
    state = states.create(
        {**first, **entries}, targets, specs=model.modalities, vocabulary=parts.vocabulary
    )
    return guide_lib.add(state, made, model.modalities) if guides else state


def _steps(
    plan: Sequence[Target] | Sequence[Step], conditions: Iterable[str]
) -> tuple[list[Step], Sampling | dict[str, Sampling]]:
    """Steps of a plan, and how their tokens are drawn."""
    chosen = [target for target in plan if isinstance(target, Target)]
    if not chosen:
        return [step for step in plan if isinstance(step, Step)], Sampling(top_p=0.8)
    filters = {one.name: Sampling(top_k=one.top_k, top_p=one.top_p) for one in chosen}
    return list(schedule.build_chained_schedule(conditions, chosen)), filters
