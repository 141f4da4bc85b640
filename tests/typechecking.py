"""The type checker of the test suite: annotations of the package are checked at every call.

`tests/conftest.py` installs it with jaxtyping's import hook before the package is imported. Shapes
and dtypes are checked too, under `jit` when the function is traced. Three things pass that a static
checker refuses, because the code means them:
  - an int where a float is expected (PEP 484 says so);
  - a numpy array where a jax array is expected: jax converts it, and what a function of operators
    alone makes of it is one too;
  - any string for a `Literal` of strings: such functions refuse wrong ones themselves, in words.
"""

import dataclasses
import functools
import types
import typing
from collections.abc import Callable
from typing import Any

import beartype
import jax
import jaxtyping
import numpy as np

_CONFIG = beartype.BeartypeConf(is_pep484_tower=True)


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` with its arguments and its result checked."""
    function.__annotations__ = {
        name: loosen(annotation) for name, annotation in function.__annotations__.items()
    }
    checked = beartype.beartype(conf=_CONFIG)(function)
    return _check_init(checked) if function.__name__ == "__init__" else checked


def loosen(annotation: Any) -> Any:
    """What a value of this annotation may be at run time."""
    if annotation is jax.Array:
        return jax.Array | np.ndarray
    if isinstance(annotation, type) and issubclass(annotation, jaxtyping.AbstractArray):
        if annotation.array_type is not jax.Array:
            return annotation
        return annotation.dtype[jax.Array | np.ndarray, annotation.dim_str]
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is tuple:
        return tuple[tuple(map(loosen, parts))]
    if origin is typing.Literal:
        return typing.Union[tuple(type(part) for part in parts)]  # noqa: UP007
    if origin in (typing.Union, types.UnionType):
        return typing.Union[tuple(loosen(part) for part in parts)]  # noqa: UP007
    return annotation


def _check_init(checked: Callable[..., Any]) -> Callable[..., Any]:
    """The same for a constructor; pytrees are also built of what is no array, and that passes.

    So does what the `__post_init__` of a dataclass turns into what its fields say.
    `jax.tree.map` fills a pytree with whatever its function returns: shapes, shardings, bools, host
    arrays; a backward pass, with cotangents of what has none (float0). Fields are checked when all
    of them are arrays on a device or in a trace.
    """

    @functools.wraps(checked)
    def init(self: Any, *args: Any, **kwargs: Any) -> Any:
        if hasattr(type(self), "__post_init__") and dataclasses.is_dataclass(self):
            return None
        if hasattr(type(self), "_flax_dataclass") and not _holds_arrays_only((args, kwargs)):
            return None
        return checked(self, *args, **kwargs)

    return init


def _holds_arrays_only(fields: Any) -> bool:
    leaves = jax.tree.leaves(fields)  # none, where a tree is mapped to None
    return bool(leaves) and all(
        isinstance(leaf, jax.Array) and leaf.dtype != jax.dtypes.float0 for leaf in leaves
    )
