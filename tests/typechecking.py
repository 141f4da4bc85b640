"""The type checker of the test suite: annotations of the package are checked at every call.

`tests/conftest.py` installs it before the package is imported: jaxtyping and beartype check shapes
and dtypes too, under `jit` when the function is traced. Functions inside functions are left out:
they would be decorated anew whenever the outer one runs, which takes milliseconds. Three things
pass that a static checker refuses, because the code means them:
  - an int where a float is expected (PEP 484 says so);
  - a numpy array where a jax array is expected: jax converts it, and what a function of operators
    alone makes of it is one too;
  - any string for a `Literal` of strings: such functions refuse wrong ones themselves, in words.
"""

import ast
import dataclasses
import functools
import importlib.abc
import importlib.machinery
import sys
import types
import typing
from collections.abc import Callable
from typing import Any

import beartype
import jax
import jaxtyping
import numpy as np

_CONFIG = beartype.BeartypeConf(is_pep484_tower=True)
_NAME = "_checked_in_tests"  # of `checked` in the modules that it decorates


def install(package: str) -> None:
    """Check calls of all functions and methods of a package that is not imported yet."""
    sys.meta_path.insert(0, _Finder(package))


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(self, fullname, path, target=None):
        if fullname.partition(".")[0] != self.package:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = Loader(spec.loader.name, spec.loader.path)
        return spec


class Loader(importlib.machinery.SourceFileLoader):
    """Loads a module with its functions, methods and classes decorated by `checked`."""

    def get_code(self, fullname):  # never the compiled file beside it, which checks nothing
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)

    def source_to_code(self, data, path, *, _optimize=-1):
        tree = ast.fix_missing_locations(_Decorate().visit(ast.parse(data, path)))
        return compile(tree, path, "exec", dont_inherit=True, optimize=_optimize)

    def exec_module(self, module):
        module.__dict__[_NAME] = checked
        super().exec_module(module)


class _Decorate(ast.NodeTransformer):
    def visit_FunctionDef(self, node):  # does not go inside
        node.decorator_list.append(self._decorator(node))  # below jax.jit and the like
        return node

    def visit_ClassDef(self, node):
        self.generic_visit(node)
        node.decorator_list.insert(0, self._decorator(node))  # above dataclasses.dataclass
        return node

    def _decorator(self, node):
        return ast.copy_location(ast.Name(_NAME, ast.Load()), node)


def checked(function_or_class: Any) -> Any:
    """Return it with its calls checked; jaxtyping joins in where annotations name arrays."""
    annotations = getattr(function_or_class, "__annotations__", {}).values()
    if isinstance(function_or_class, type) or any(map(_names_arrays, annotations)):
        return jaxtyping.jaxtyped(function_or_class, typechecker=check)
    return _check_types(function_or_class)


def _names_arrays(annotation: Any) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, jaxtyping.AbstractArray):
        return True
    parts = annotation if isinstance(annotation, list) else typing.get_args(annotation)
    return any(map(_names_arrays, parts))


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """What jaxtyping calls with the arguments of a function, and again with its result."""
    types_checked = _check_types(function)
    return _check_init(types_checked) if function.__name__ == "__init__" else types_checked


def _check_types(function: Callable[..., Any]) -> Callable[..., Any]:
    function.__annotations__ = {
        name: loosen(annotation) for name, annotation in function.__annotations__.items()
    }
    return beartype.beartype(conf=_CONFIG)(function)


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
