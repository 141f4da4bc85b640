"""Modules found by name: a package's files that offer a function are what one may name there."""

import importlib
import importlib.util
import pkgutil
from types import ModuleType

from fourm_jax.utils.errors import unknown_value


def offering(package: ModuleType, function: str) -> dict[str, ModuleType]:
    """Return {name: module} of the direct modules of `package` with a function of this name.

    Every module of the package is imported; packages inside it are not searched.
    """
    names = [info.name for info in pkgutil.iter_modules(package.__path__) if not info.ispkg]
    modules = {name: importlib.import_module(f"{package.__name__}.{name}") for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, function)}


def get(package: ModuleType, function: str, name: str, what: str) -> ModuleType:
    """Return the module `name` of `package`, which has this function.

    Raises:
      ValueError: there is none; names `what` it is not and the ones that there are.
    """
    if name.isidentifier() and importlib.util.find_spec(f"{package.__name__}.{name}"):
        module = importlib.import_module(f"{package.__name__}.{name}")
        if hasattr(module, function):
            return module
    raise ValueError(unknown_value(what, name, offering(package, function)))
