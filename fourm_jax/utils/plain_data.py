"""Checks of plain data at the border: JSON and YAML from files become settings only in bounds.

RULES = {"dim": integer(1, 65_536), "gated": FLAG, "names": list_of(TEXT, 100)}
check({"dim": 10**12}, RULES, "config.json")
ValueError: config.json: dim is 1000000000000, allowed: an integer in 1 … 65536
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

MAX_TEXT = 10_000  # characters
MAX_SHOWN = 80  # characters of a value in a message


class Rule(NamedTuple):
    """What a value may be: in words, and as a function that never raises."""

    allowed: str
    holds: Callable[[Any], bool]


def integer(low: int, high: int) -> Rule:
    """An integer, bounds included; True is none."""
    return Rule(
        f"an integer in {low} … {high}", lambda value: type(value) is int and low <= value <= high
    )


def number(low: float, high: float) -> Rule:
    """A finite number, bounds included."""
    return Rule(
        f"a number in {low:g} … {high:g}",
        lambda value: type(value) in (int, float) and low <= value <= high,
    )


def scalar(largest: float) -> Rule:
    """What is neither list nor dict: nothing, a flag, a text, or a number of at most this size."""
    numbers = number(-largest, largest)

    def holds(value: Any) -> bool:
        return value is None or type(value) is bool or TEXT.holds(value) or numbers.holds(value)

    return Rule(f"a text, true, false, nothing or {numbers.allowed}", holds)


def optional(rule: Rule) -> Rule:
    """None, or what `rule` allows."""
    return Rule(f"{rule.allowed}, or nothing", lambda value: value is None or rule.holds(value))


def any_of(*rules: Rule) -> Rule:
    """What one of the rules allows."""
    allowed = ", or ".join(rule.allowed for rule in rules)
    return Rule(allowed, lambda value: any(rule.holds(value) for rule in rules))


def list_of(rule: Rule, longest: int) -> Rule:
    """A list or tuple of what `rule` allows."""

    def holds(value: Any) -> bool:
        return (
            isinstance(value, list | tuple)
            and len(value) <= longest
            and all(map(rule.holds, value))
        )

    return Rule(f"a list of at most {longest}, each {rule.allowed}", holds)


def dict_of(rule: Rule) -> Rule:
    """A dict of names to what `rule` allows."""

    def holds(value: Any) -> bool:
        return (
            isinstance(value, Mapping)
            and all(map(TEXT.holds, value))
            and all(map(rule.holds, value.values()))
        )

    return Rule(f"names with {rule.allowed} each", holds)


FLAG = Rule("true or false", lambda value: type(value) in (bool, int) and value in (0, 1))
TEXT = Rule(
    f"a text of at most {MAX_TEXT} characters",
    lambda value: isinstance(value, str) and len(value) <= MAX_TEXT,
)
ANYTHING = Rule("anything", lambda value: True)
DICT = dict_of(ANYTHING)


def check(
    values: Any, rules: Mapping[str, Rule], where: Any, *, required: Collection[str] = ()
) -> None:
    """Check the values that have a rule.

    Args:
      values: plain data from a file.
      where: the file, for messages.
      required: names that must be there; any other that is not there breaks no rule.

    Raises:
      ValueError: `values` is no dict, what is required is missing, or a value breaks its rule.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{where}: found {shown(values)}, expected names with values")
    missing = sorted(set(required) - set(values))
    if missing:
        raise ValueError(f"{where}: no {', '.join(map(repr, missing))}")
    for name, rule in rules.items():
        if name in values and not rule.holds(values[name]):
            raise ValueError(f"{where}: {name} is {shown(values[name])}, allowed: {rule.allowed}")


def shown(value: Any) -> str:
    """A value in a message: cut, so that one line stays one line."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"
