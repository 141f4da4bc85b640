"""Libraries that one corner needs: loaded when it is used, named with their extra when missing."""

import importlib
from types import ModuleType

PACKAGES = {"skimage": "scikit-image", "sklearn": "scikit-learn"}  # where the names differ


def require(module: str, *, extra: str, who: str) -> ModuleType:
    """Import a module of an extra of this package.

    Args:
      module: dotted name.
      extra: of setup.py.
      who: what needs it, for the message.

    Raises:
      ValueError: it is not installed; says what to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        top = module.split(".")[0]
        package = PACKAGES.get(top, top)
        raise ValueError(
            f"{who} needs {package} ({error}): pip install 'fourm_jax[{extra}]', or "
            f"pip install {package}"
        ) from error
