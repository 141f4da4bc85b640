"""Libraries that only some labelers need: loaded when one is built, named when missing."""

from types import ModuleType

from fourm_jax.utils import extras


def require(module: str, labeler: str) -> ModuleType:
    """Import a module of the extra [labelers].

    Raises:
      ValueError: it is not installed; says what to install.
    """
    return extras.require(module, extra="labelers", who=f"labeler {labeler!r}")
