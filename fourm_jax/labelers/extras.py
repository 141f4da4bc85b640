"""Libraries that only some labelers need: loaded when one is built, named when missing."""

import importlib
from types import ModuleType


def require(module: str, labeler: str) -> ModuleType:
    """Import a module of the extra [labelers].

    Raises:
      ValueError: it is not installed; says what to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = {"skimage": "scikit-image"}.get(module.split(".")[0], module.split(".")[0])
        raise ValueError(
            f"labeler {labeler!r} needs {package} ({error}): pip install 'fourm_jax[labelers]', or "
            f"pip install {package}"
        ) from error
