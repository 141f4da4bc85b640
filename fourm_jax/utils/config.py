"""Configs as locked ConfigDicts: arguments, overrides by dotted key, comparison, JSON."""

import contextlib
import copy
import dataclasses
import difflib
import importlib.util
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import ml_collections
from etils import epath

from fourm_jax.utils import errors

Config: TypeAlias = Mapping[str, Any] | ml_collections.ConfigDict  # the second is no Mapping


def parse_arg(arg: str | None, **defaults: Any) -> ml_collections.ConfigDict:
    """Parse the argument of `get_config`: "key=value,key=value,flag", e.g. "size=nano,runlocal".

    A flag is a name whose default is False; values take the type of their default.

    Example: parse_arg("size=nano,runlocal", size="small", runlocal=False) has size "nano" and
    runlocal True.

    Raises:
      ValueError: a name that is not among `defaults` or is given twice, a name without a value that
        is no flag, or a value of another type.
    """
    parsed, seen = ml_collections.ConfigDict(defaults), set()
    for part in filter(None, (arg or "").split(",")):
        name, given, value = part.strip().partition("=")
        if name not in defaults:
            raise ValueError(errors.unknown_value("config argument", name, defaults))
        if name in seen:
            raise ValueError(f"config argument {name!r} is given twice in {arg!r}")
        seen.add(name)
        if not given and not isinstance(defaults[name], bool):
            raise ValueError(f"config argument {name!r} needs a value: {name}=…")
        parsed[name] = _convert(name, value if given else "true", defaults[name])
    return parsed.lock()


def load(path: str, overrides: Mapping[str, Any] | None = None) -> ml_collections.ConfigDict:
    """Load `configs/name.py:argument` as `--config` does and apply {"a.b": value} overrides.

    Raises:
      ValueError: no such file, one that fails or gives no config, an unknown argument or an
        unknown override key.
    """
    file, _, arg = path.partition(":")
    if not epath.Path(file).is_file():
        raise ValueError(f"config file {file!r} does not exist")
    module_spec = importlib.util.spec_from_file_location(epath.Path(file).stem, file)
    if module_spec is None or module_spec.loader is None:
        raise ValueError(f"config file {file!r} is not a Python file")
    module = importlib.util.module_from_spec(module_spec)
    with _named(file):
        module_spec.loader.exec_module(module)
    if not callable(getattr(module, "get_config", None)):
        raise ValueError(f"config file {file!r} has no function get_config")
    with _named(file):
        # As `--config` calls it: the argument only where there is one.
        config = module.get_config(arg) if arg else module.get_config()
    if not isinstance(config, ml_collections.ConfigDict):
        kind = type(config).__name__
        raise ValueError(f"config file {file!r}: get_config returns {kind}, expected a ConfigDict")
    return override(config, overrides or {})


@contextlib.contextmanager
def _named(file: str) -> Iterator[None]:
    """What the code of a config file raises becomes a ValueError that names the file.

    Our own messages on its arguments say enough and pass as they are.
    """
    try:
        yield
    except ValueError:
        raise
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"config file {file!r} fails with {reason}") from error


def override(
    config: ml_collections.ConfigDict, overrides: Mapping[str, Any]
) -> ml_collections.ConfigDict:
    """Return a locked copy with {"optimizer.lr": 1e-3, ...} applied.

    Raises:
      ValueError: a key that does not exist (names the nearest), a value of another type.
    """
    config = copy.deepcopy(config.copy_and_resolve_references())  # that one shares its lists
    for key, value in overrides.items():
        check_key(config, key)
        *outer, last = _split(key)
        node = config
        for name in outer:
            node = node[int(name) if name.isdigit() else name]
        try:
            node[last] = value
        except TypeError as error:
            raise ValueError(f"config key {key!r} = {value!r}: {error}") from error
    return config.lock()


def check_key(config: ml_collections.ConfigDict, key: str) -> None:
    """Check that a dotted key such as "optimizer.lr" or "data[0].weight" exists.

    Raises:
      ValueError: names the nearest key, and all those of its group.
    """
    known = [*flatten(config), *_groups(config)]
    name = ".".join(_split(key))
    if name in known:
        return
    nearest = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {_as_typed(nearest[0])!r}?" if nearest else "."
    group = (nearest or [name])[0].rpartition(".")[0]
    siblings = sorted({_as_typed(n) for n in known if n.rpartition(".")[0] == group})
    raise ValueError(f"unknown config key {key!r}{hint} Allowed there: {', '.join(siblings)}")


def _as_typed(name: str) -> str:
    """A key as the command line takes it: data.0.weight -> data[0].weight."""
    return re.sub(r"\.(\d+)(?=\.|$)", r"[\1]", name)


def check_group(config: Config, group: str, allowed: Iterable[str]) -> dict[str, Any]:
    """Return one level of a config as keyword arguments, with tuples for lists.

    Raises:
      ValueError: no group of keys, or a key outside `allowed`: names the nearest allowed one.
    """
    if not isinstance(config, Mapping | ml_collections.ConfigDict):
        raise ValueError(f"config key {group!r} is {config!r}, expected keys with values")
    prefix = f"{group}." if group else ""
    names = [prefix + name for name in allowed]
    for key in config:
        if prefix + key not in names:
            raise ValueError(errors.unknown_value("config key", prefix + key, names))
    return {
        key: tuple(value) if isinstance(value, list | tuple) else value
        for key, value in config.items()
    }


def fields_of(
    config: Config, group: str, owner: type, except_names: Collection[str] = ()
) -> dict[str, Any]:
    """Return a group of a config as values for the fields of dataclass `owner`.

    Raises:
      ValueError: a key that is no field of `owner`, or one of `except_names`.
    """
    names = [field.name for field in dataclasses.fields(owner) if field.init]
    return check_group(config[group], group, [name for name in names if name not in except_names])


def plain(value: Any) -> Any:
    """Dicts for ConfigDicts and tuples for lists, at every level."""
    if isinstance(value, Mapping | ml_collections.ConfigDict):
        return {key: plain(item) for key, item in value.items()}
    return tuple(plain(item) for item in value) if isinstance(value, list | tuple) else value


def flatten(config: Config | Sequence[Any], prefix: str = "") -> dict[str, Any]:
    """{"optimizer.lr": 1e-3, ...}: the leaves of nested mappings and of lists of mappings."""
    flat = {}
    for key, value in _items(config):
        if isinstance(value, Mapping | ml_collections.ConfigDict) or _is_list_of_groups(value):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def to_json(config: Config) -> dict[str, Any]:
    """Plain dicts, lists and numbers, as `json` would read them back."""
    return json.loads(json.dumps(_json_ready(config)))


def from_json(value: Mapping[str, Any]) -> ml_collections.ConfigDict:
    """Locked config from `to_json`'s result; its tuples have become lists."""
    return ml_collections.ConfigDict(value).lock()


def differences(before: Config, after: Config) -> dict[str, tuple[Any, Any]]:
    """{"optimizer.lr": (before, after), ...} of two `to_json` results; a missing key is None."""
    old, new = flatten(before), flatten(after)
    keys = dict.fromkeys([*old, *new])
    return {key: (old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)}


def _split(key: str) -> list[str]:
    return key.replace("[", ".").replace("]", "").split(".")


def _items(config: Any) -> Iterable[tuple[Any, Any]]:
    return enumerate(config) if isinstance(config, list | tuple) else config.items()


def _is_list_of_groups(value: Any) -> bool:
    groups = (Mapping, ml_collections.ConfigDict)
    return isinstance(value, list | tuple) and any(isinstance(item, groups) for item in value)


def _groups(config: Any, prefix: str = "") -> list[str]:
    names = []
    for key, value in _items(config):
        if isinstance(value, Mapping | ml_collections.ConfigDict) or _is_list_of_groups(value):
            names += [f"{prefix}{key}", *_groups(value, f"{prefix}{key}.")]
    return names


def _json_ready(value: Any) -> Any:
    if isinstance(value, Mapping | ml_collections.ConfigDict):
        return {key: _json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_ready(item) for item in value]
    return value


def _convert(name: str, text: str, default: Any) -> Any:
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError(f"config argument {name}={text!r}, allowed: true, false")
        return text.lower() == "true"
    try:
        return type(default)(text)
    except ValueError as error:
        kind = type(default).__name__
        raise ValueError(f"config argument {name}={text!r} is not of type {kind}") from error
