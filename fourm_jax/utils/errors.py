"""Messages of errors: what was given, and what is allowed."""

import difflib
from collections.abc import Iterable


def unknown_value(what: str, value: str, allowed: Iterable[str]) -> str:
    """Error text that names the value, the nearest valid one and all that are allowed."""
    nearest = difflib.get_close_matches(value, list(allowed), n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
    return f"unknown {what} {value!r}{hint} Allowed: {sorted(allowed)}"
