"""Start from weights: every part of a new state is copied, resized, new, or refused by name."""

import dataclasses
import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.models import parts
from fourm_jax.models.weights import Weights
from fourm_jax.ops import interpolate
from fourm_jax.train import companions
from fourm_jax.train.state import TrainState
from fourm_jax.utils import tree

_GRID = re.compile(r"(?P<table>.*positions/table)/(?P<rows>\d+)x(?P<columns>\d+)$")
_LENGTH = re.compile(r"positions/(table|codes)/")
_VOCABULARY = re.compile(r"(tokens|heads)/")
_PATCHES = re.compile(r"encoder_embedding/contents_(?P<modality>[^/]+)/kernel$")
_OF_PIXELS = re.compile(r"(/contents_|modality_embedding/)(?P<modality>[^/]+)(/kernel)?$")
_NUM_NAMED = 3  # candidates in a message


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What `config.init` holds; regexes are searched in the names of parts (`models.parts`).

    Attributes:
      source: run folder, folder of a converted or published model, or Hub id.
      rename: {regex: replacement} from the names of this model to those of the source, so that one
        part of the source may start several. Keys of a config hold no dots.
      reset: regex of what starts anew.
      freeze: regex of what stays as it is.
    """

    source: str
    rename: Mapping[str, str] = dataclasses.field(default_factory=dict)
    reset: str = ""
    freeze: str = ""

    def __post_init__(self) -> None:
        if not self.source:
            raise ValueError("init.source is empty: name a run folder, a folder or a Hub id")
        for pattern in (*self.rename, self.reset, self.freeze):
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"init: {pattern!r} is no regular expression: {error}") from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """What became of every part.

    Attributes:
      copied, new, dropped: names; the dropped ones are of the source.
      resized: {name: how}.
      extended: of those that are resized, the ones that hold something new beside what they were.
    """

    copied: tuple[str, ...]
    resized: Mapping[str, str]
    new: tuple[str, ...]
    dropped: tuple[str, ...]
    extended: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line for people."""
        text = f"{len(self.copied)} parts copied"
        if self.resized:
            text += ", resized: " + "; ".join(f"{n} ({how})" for n, how in self.resized.items())
        for what, names in (("new", self.new), ("dropped", self.dropped)):
            more = f" and {len(names) - 6} more" if len(names) > 6 else ""
            text += f", {what}: {', '.join(names[:6])}{more}" if names else ""
        return text


@dataclasses.dataclass(frozen=True)
class _Start:
    """Rows [0, n) of a part, and how they came about; "" = as they were.

    Attributes:
      is_extended: there are rows or channels beside them that the source does not know.
    """

    rows: np.ndarray
    how: str = ""
    is_extended: bool = False


def start(
    state: TrainState,
    settings: Settings,
    weights: Weights,
    *,
    packed: parts.Packed,
    specs: Sequence[ModalitySpec] = (),
    function: Mapping[str, Any] | None = None,
) -> tuple[TrainState, Report]:
    """Return the fresh state with the weights of the source in it, and what became of every part.

    Args:
      weights: of the source.
      packed: tables of the parameters of `state`.
      specs, function: of the new trunk, as in `Weights`.

    Raises:
      ValueError: a part that nothing explains, a setting of the source that changes what its
        weights mean, a part of it that others need and the new model lacks, a regex that matches
        nothing, or no part that fits at all.
    """
    for name, value in weights.function.items():
        here = (function or {}).get(name, value)
        if here != value:
            raise ValueError(f"init: model.{name} is {here!r}, and {value!r} in {settings.source}")
    variables = {"params": state.params, **state.model_state}
    packed = parts.under(packed, "params")
    found, report = plan(parts.split(variables, packed), settings, weights, specs)
    filled = _fill(variables, found, packed)
    params = filled.pop("params")
    changes: dict[str, Any] = {"params": params, "model_state": filled}
    if state.ema_params is not None:
        changes["ema_params"] = jax.tree.map(jnp.copy, params)
    return state.replace(**changes), report


def plan(
    fresh: Mapping[str, Any],
    settings: Settings,
    weights: Weights,
    specs: Sequence[ModalitySpec] = (),
) -> tuple[dict[str, _Start], Report]:
    """What each part starts from, by name, and the report; see `start`."""
    by_name = {spec.name: spec for spec in specs}
    names = [name.removeprefix("params/") for name in fresh]
    for what, pattern in [("reset", settings.reset), *(("rename", key) for key in settings.rename)]:
        if pattern and not any(re.search(pattern, name) for name in names):
            raise ValueError(f"init.{what}: {pattern!r} matches no part of the new model")
    found: dict[str, _Start] = {}
    used, new = set(), []
    for full, leaf in fresh.items():
        name = full.removeprefix("params/")
        if settings.reset and re.search(settings.reset, name):
            new.append(name)
            continue
        source = name
        for pattern, replacement in settings.rename.items():
            source = re.sub(pattern, replacement, source)
        source = _of_a_known_picture(source, weights, by_name)
        one = _convert(source, tuple(leaf.shape), weights, by_name.get(_owner(name)))
        if one is None:
            raise ValueError(_unexplained(name, source, tuple(leaf.shape), settings, weights))
        found[full], origin = one
        used.add(origin)
    if not found:
        raise ValueError(f"init: nothing of {settings.source} is used; init.reset covers all parts")
    plain = {full.removeprefix("params/"): start.how for full, start in found.items()}
    dropped = tuple(name for name in weights.parts if name not in used)
    companions.check_dropped(dropped, used, names, weights, specs, settings.source)
    return found, Report(
        copied=tuple(name for name, how in plain.items() if not how),
        resized={name: how for name, how in plain.items() if how},
        new=tuple(new),
        dropped=dropped,
        extended=tuple(full.removeprefix("params/") for full, s in found.items() if s.is_extended),
    )


def check_learned(report: Report, settings: Settings, never_learns: Callable[[str], bool]) -> None:
    """Refuse what would stay as it was drawn: parts that no weights fill, and that do not learn.

    Args:
      never_learns: of the task.

    Raises:
      ValueError: names the first one, and what keeps it as it is.
    """
    for name in (*report.new, *report.extended):
        who = f"init: {name!r} ({report.resized.get(name, 'starts anew')}) would never learn"
        if settings.freeze and re.search(settings.freeze, name):
            raise ValueError(f"{who}: take it out of init.freeze")
        if never_learns(name):
            raise ValueError(
                f"{who} under transfer.lora_rank or transfer.think: go without them, or without "
                "that input"
            )


def _of_a_known_picture(name: str, weights: Weights, specs: Mapping[str, ModalitySpec]) -> str:
    """Where a picture that the source does not know starts: as the first picture that it knows."""
    match = _OF_PIXELS.search(name)
    spec = specs.get(match["modality"]) if match else None
    if match is None or spec is None or spec.kind != "pixels" or name in weights.parts:
        return name
    for other in weights.specs.values():
        candidate = name[: match.start("modality")] + other.name + name[match.end("modality") :]
        if other.kind == "pixels" and candidate in weights.parts:
            return candidate
    return name


def _convert(
    name: str, shape: tuple[int, ...], weights: Weights, spec: ModalitySpec | None
) -> tuple[_Start, str] | None:
    """What a part of this shape starts from, and the name of that in the source; None: nothing."""
    stored = weights.parts.get(name)
    if stored is None:
        return _from_other_grid(name, weights)
    value = np.asarray(stored)
    before = weights.specs.get(_owner(name)) if _PATCHES.search(name) else None
    same_dim = value.shape[-1:] == shape[-1:]
    if before and spec and same_dim and "pixels" == before.kind == spec.kind:
        how = _patch_change(before, spec)
        rows = _resize_patches(value, before, spec) if how else value
        num_known = len(_channel_origins(before, spec))
        return _Start(rows, how, is_extended=0 < num_known < spec.num_channels), name
    if value.shape == shape:
        return _Start(value), name
    if len(value.shape) != len(shape) or value.shape[-1] != shape[-1]:
        return None
    same_width = value.shape[1:] == shape[1:]
    if same_width and _VOCABULARY.search(name) and shape[0] > value.shape[0]:
        return _Start(value, f"{shape[0] - value.shape[0]} rows appended", is_extended=True), name
    if same_width and _LENGTH.search(name) and not _GRID.search(name):
        kept = min(shape[0], value.shape[0])
        how = f"{value.shape[0]} to {shape[0]} positions"
        return _Start(value[:kept], how, is_extended=kept < shape[0]), name
    return None


def _from_other_grid(name: str, weights: Weights) -> tuple[_Start, str] | None:
    """The positions of a grid that the source lacks, from its largest one."""
    wanted = _GRID.search(name)
    grids = {other: match for other in weights.parts if (match := _GRID.search(other))}
    if wanted is None:
        return None
    near = {o: m for o, m in grids.items() if m["table"] == wanted["table"]}
    if not near:
        return None
    largest = max(near, key=lambda other: len(weights.parts[other]))
    size = int(near[largest]["rows"]), int(near[largest]["columns"])
    table = np.asarray(weights.parts[largest])
    resized = interpolate.resize_bicubic(
        table.reshape(*size, -1), (int(wanted["rows"]), int(wanted["columns"]))
    )
    how = f"interpolated from {size[0]}x{size[1]}"
    return _Start(resized.reshape(-1, table.shape[-1]), how), largest


def _resize_patches(
    kernel: Float[np.ndarray, "e d"], before: ModalitySpec, now: ModalitySpec
) -> Float[np.ndarray, "f d"]:
    """A patch projection for patches of another size or number of channels.

    The size by the pseudo-inverse of resizing the picture (FlexiViT, arXiv:2212.08013, section
    3.4): a picture that is enlarged as the patches are gives the same tokens. Channels are known by
    their names, those without by their places; new ones start at zero, beside those known. A
    picture that shares no channel starts with the mean of all, so that it counts as much.
    """
    size, channels = before.patch_size, before.num_channels
    value = kernel.reshape(size, size, channels, -1).astype(np.float64)
    if now.patch_size != size:
        matrix = interpolate.bicubic_weights(size, now.patch_size)
        inverse = np.linalg.pinv(np.kron(matrix, matrix).T)
        value = (inverse @ value.reshape(size * size, -1)).reshape(
            now.patch_size, now.patch_size, channels, -1
        )
    origins = _channel_origins(before, now)
    changed = np.zeros((*value.shape[:2], now.num_channels, value.shape[3]))
    if not origins:
        changed[:] = value.sum(2, keepdims=True) / now.num_channels
    for place, origin in origins.items():
        changed[:, :, place] = value[:, :, origin]
    return changed.reshape(-1, value.shape[3]).astype(kernel.dtype)


def _channel_origins(before: ModalitySpec, now: ModalitySpec) -> dict[int, int]:
    """{channel here: the same channel there}."""
    if before.channel_names and now.channel_names:
        there = {name: place for place, name in enumerate(before.channel_names)}
        return {i: there[name] for i, name in enumerate(now.channel_names) if name in there}
    if before.source != now.source:
        return {}
    return {place: place for place in range(min(before.num_channels, now.num_channels))}


def _patch_change(before: ModalitySpec, now: ModalitySpec) -> str:
    """What differs between two pictures; "" where nothing that matters does."""
    old, new = ((s.patch_size, s.patch_size, s.num_channels) for s in (before, now))
    origins = _channel_origins(before, now)
    if old == new and origins == {place: place for place in range(now.num_channels)}:
        return ""
    how = f"patches {old} to {new}"
    if not origins:
        return f"{how}, the mean of the channels of {before.name}"
    fresh = [name for place, name in enumerate(now.channels) if place not in origins]
    return f"{how}, channels from zero: {', '.join(fresh)}" if fresh else how


def _owner(name: str) -> str:
    match = _PATCHES.search(name)
    return match["modality"] if match else ""


def _unexplained(
    name: str, source: str, shape: tuple[int, ...], settings: Settings, weights: Weights
) -> str:
    there = weights.parts.get(source)
    renamed = f" (read from {source!r})" if source != name else ""
    if there is not None:
        reason = f"has shape {tuple(there.shape)} there, and no rule converts it"
    else:
        near = difflib.get_close_matches(source, weights.parts, n=_NUM_NAMED, cutoff=0.0)
        shapes = ", ".join(f"{other} {tuple(weights.parts[other].shape)}" for other in near)
        reason = f"is not there; nearest: {shapes}"
    return (
        f"init: {name!r}{renamed} of shape {shape} has nothing to start from in "
        f"{settings.source}: it {reason}. Name its origin in init.rename, or start it anew with "
        "init.reset"
    )


def _fill(
    variables: Mapping[str, Any], found: Mapping[str, _Start], packed: parts.Packed
) -> dict[str, Any]:
    """The variables with what was found in place, in their own shardings."""
    changes: dict[str, list[tuple[int, np.ndarray]]] = {}
    for path in tree.named_leaves(variables):
        slices = packed.get(path, ())
        named = {f"{path}/{rows.name}": rows.offset for rows in slices} or {path: 0}
        changes[path] = [(o, found[name].rows) for name, o in named.items() if name in found]

    def put(leaf: Array, pieces: Sequence[tuple[int, Array]]) -> Array:
        for offset, rows in pieces:
            rows = jnp.asarray(rows, leaf.dtype)
            leaf = leaf.at[offset : offset + len(rows)].set(rows) if leaf.ndim else rows
        return leaf

    def one(path: str, leaf: Array) -> Array:
        pieces = changes[path]
        if not pieces:
            return leaf
        if len(pieces) == 1 and pieces[0][1].shape == leaf.shape:
            whole = pieces[0][1].astype(leaf.dtype)
            return jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda i: whole[i])
        offsets = [offset for offset, _ in pieces]
        in_place = jax.jit(
            lambda leaf, rows: put(leaf, list(zip(offsets, rows, strict=True))),
            out_shardings=leaf.sharding,
        )
        return in_place(leaf, [rows for _, rows in pieces])

    return tree.map_named(one, dict(variables))
