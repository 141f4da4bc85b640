"""Configs that an older version stored, in today's words: a renamed key never closes a run folder.

Whoever renames a config key adds one line here. A stored config (in a checkpoint, in `config.json`)
goes through `upgrade_config` before anything reads it, and so do the arguments on a tokenizer's
card, which are the group "tokenizer.arguments" of the config that trained it.
"""

import copy
from collections.abc import Mapping
from typing import Any

# Dotted key as it was -> as it is; "*" stands for every item of a list or every key of a group.
# Applied in this order. None as the new name: the key is gone and nothing reads it.
RENAMED_CONFIG_KEYS: dict[str, str | None] = {
    "data.*.mixture.spill": "data.*.mixture.share_leftover",
    "data.*.arguments.test_share": "data.*.arguments.test_fraction",
    "max_bad_records": "max_left_out_records",
    "model.compat": "model.as_published",
    "tokenizer.arguments.compat": "tokenizer.arguments.as_published",
    "tokenizer.arguments.quantizer.compat": "tokenizer.arguments.quantizer.as_published",
}

# Dotted key as it is -> {value as it was: value as it is}.
RENAMED_CONFIG_VALUES: dict[str, dict[Any, Any]] = {
    "model.as_published": {"ml-4m": True, "": False, None: False},
    "tokenizer.arguments.as_published": {"ml-4m": True, "": False},
    "tokenizer.arguments.quantizer.as_published": {"ml-4m": True, "": False},
}

# Dotted key that configs of a task lacked -> what they did without it.
ADDED_CONFIG_KEYS: dict[str, dict[str, Any]] = {
    "fourm": {"z_loss": 0.0, "model.smooth_numbers": False},
    "transfer": {"model.smooth_numbers": False},
}

# Field of a `ModalitySpec` as it was -> as it is; a checkpoint holds the specs of its modalities.
RENAMED_MODALITY_FIELDS: dict[str, str | None] = {}


def upgrade_modalities(
    modalities: Mapping[str, Mapping[str, Any]], fields: Mapping[str, str | None] | None = None
) -> dict[str, dict[str, Any]]:
    """Return a copy of stored {modality: {field: value}} with today's field names."""
    fields = RENAMED_MODALITY_FIELDS if fields is None else fields
    keys = {f"*.{old}": None if new is None else f"*.{new}" for old, new in fields.items()}
    return upgrade_config(modalities, keys, {})


def upgrade_config(
    config: Mapping[str, Any],
    keys: Mapping[str, str | None] | None = None,
    values: Mapping[str, Mapping[Any, Any]] | None = None,
) -> dict[str, Any]:
    """Return a copy of a stored config with today's keys and values; a current one stays as it is.

    Example: upgrade_config({"loss": {"kind": 1}}, {"loss.kind": "loss.type"}) is
    {"loss": {"type": 1}}.

    Args:
      config: plain dicts and lists, as JSON reads them.
      keys: renames, default `RENAMED_CONFIG_KEYS`.
      values: renamed values, default `RENAMED_CONFIG_VALUES`.

    Raises:
      ValueError: the config holds a key under its old and under its new name.
    """
    upgraded = copy.deepcopy(dict(config))
    if keys is None:
        for name, value in ADDED_CONFIG_KEYS.get(str(upgraded.get("task")), {}).items():
            _add(upgraded, name.split("."), value)
    for old, new in (RENAMED_CONFIG_KEYS if keys is None else keys).items():
        _rename(upgraded, old, new)
    for name, renamed in (RENAMED_CONFIG_VALUES if values is None else values).items():
        for path in _paths(upgraded, name.split(".")):
            node, key = _node(upgraded, path[:-1]), path[-1]
            if isinstance(node[key], str | bool | int | None) and node[key] in renamed:
                node[key] = renamed[node[key]]
    return upgraded


def upgrade_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of stored arguments of a tokenizer's `build` with today's keys and values."""
    trained_by = upgrade_config({"tokenizer": {"arguments": dict(arguments)}})
    return trained_by["tokenizer"]["arguments"]


def _rename(config: dict[str, Any], old: str, new: str | None) -> None:
    for path in _paths(config, old.split(".")):
        value = _node(config, path[:-1]).pop(path[-1])
        if new is None:
            continue
        # The n-th "*" of the new name is what the n-th "*" of the old one stood for.
        pairs = zip(path, old.split("."), strict=True)
        stars = iter([part for part, pattern in pairs if pattern == "*"])
        *outer, last = [next(stars) if part == "*" else part for part in new.split(".")]
        node = config
        for part in outer:
            node = node.setdefault(part, {}) if isinstance(node, dict) else node[part]
        if last in node:
            raise ValueError(f"stored config holds {old!r} and {new!r}, its name today")
        node[last] = value


def _add(config: dict[str, Any], parts: list[str], value: Any) -> None:
    *outer, last = parts
    for part in outer:
        if not isinstance(config.get(part), dict):
            return  # no such group: nothing to complete
        config = config[part]
    config.setdefault(last, value)


def _paths(node: Any, parts: list[str]) -> list[list[Any]]:
    """Every path of `node` that fits the pattern, as keys and list indices."""
    if not parts:
        return [[]]
    first, *rest = parts
    found: list[Any]
    if isinstance(node, list):
        found = list(range(len(node))) if first == "*" else []
    elif isinstance(node, dict):
        found = list(node) if first == "*" else [first] * (first in node)
    else:
        found = []
    return [[key, *path] for key in found for path in _paths(node[key], rest)]


def _node(config: Any, path: list[Any]) -> Any:
    for key in path:
        config = config[key]
    return config
