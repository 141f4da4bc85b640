"""Messages of errors: what was given, what is allowed, and which file it came from."""

import contextlib
import difflib
from collections.abc import Iterable, Iterator
from typing import Any


def unknown_value(what: str, value: str, allowed: Iterable[str]) -> str:
    """Error text that names the value, the nearest valid one and all that are allowed."""
    allowed = list(allowed)
    # By letters "det" is as near to "depth" as "tok_depth" is; whole words count first.
    containing = sorted((name for name in allowed if value and value in name.split("_")), key=len)
    nearest = containing or difflib.get_close_matches(value, allowed, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
    return f"unknown {what} {value!r}{hint} Allowed: {sorted(allowed)}"


def check_distinct(what: str, names: Iterable[str]) -> None:
    """Refuse a list in which a name stands twice.

    Raises:
      ValueError: names the first one, as a `what`.
    """
    seen = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{what} {name!r} is given twice")
        seen.add(name)


@contextlib.contextmanager
def described_by(file: Any) -> Iterator[None]:
    """Whatever goes wrong with what a file describes is a ValueError that names the file.

    For building modules from cards and configs of strangers: what builds them trusts its
    arguments, so that wrong ones raise all kinds of errors.
    """
    try:
        yield
    except Exception as error:
        message = str(error).strip() or "no reason given"
        reason = message if isinstance(error, ValueError) else f"{type(error).__name__}: {message}"
        raise ValueError(reason if str(file) in reason else f"{file}: {reason}") from error
