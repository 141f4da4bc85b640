"""Names for the leaves of a pytree: "params/encoder/blocks/attention/query/kernel"."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import jax


def path_name(path: Sequence[Any]) -> str:
    """Join a key path of `jax.tree_util` with slashes."""
    return jax.tree_util.keystr(tuple(path), simple=True, separator="/")


def named_leaves(tree: Any) -> dict[str, Any]:
    """Leaves of `tree` by their path, in tree order."""
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def map_named(function: Callable[[str, Any], Any], tree: Any) -> Any:
    """Tree of `function(path, leaf)`."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: function(path_name(path), leaf), tree
    )


def matches(patterns: Sequence[str], tree: Any, what: str) -> Any:
    """Tree of bools: whether the path of a leaf contains one of the regexes.

    Raises:
      ValueError: a pattern that matches no leaf at all (a misspelt selector), naming `what`.
    """
    names = list(named_leaves(tree))
    for pattern in patterns:
        if not any(re.search(pattern, name) for name in names):
            shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
            raise ValueError(f"{what}: {pattern!r} matches no parameter; there are: {shown}")
    return map_named(lambda name, _: any(re.search(p, name) for p in patterns), tree)


def num_elements(tree: Any) -> int:
    """Number of array elements, e.g. the parameter count."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
