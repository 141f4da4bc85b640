"""Where a checkpoint lies: a local path, or a repository of the Hugging Face Hub, fetched."""

import os
import re

from etils import epath

from fourm_jax.utils import extras

HUB_ID = re.compile(r"[\w-]+/[\w.-]+")
FILES = ("config.json", "*.safetensors", "*.safetensors.index.json")  # never a pickle


def locate(source: str | os.PathLike) -> epath.Path:
    """Local path of `source`, downloaded (or found in the Hub's cache) if it is a Hub id.

    Raises:
      ValueError: neither a path nor a Hub id; the extra [hub] is missing; the Hub cannot be
        reached and the cache does not hold the repository; the repository holds no safetensors.
    """
    path = epath.Path(source).expanduser()
    if path.exists():
        return path
    if not HUB_ID.fullmatch(str(source)) or path.suffix == ".safetensors":
        raise ValueError(f"{source}: no such file or folder, and no Hub id (owner/name)")
    who = f"{source}: no such folder; reading it from the Hub"
    huggingface_hub = extras.require("huggingface_hub", extra="hub", who=who)
    try:
        folder = huggingface_hub.snapshot_download(str(source), allow_patterns=list(FILES))
    except Exception as error:  # every version of the client has its own kinds of errors
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            f"{source}: no such folder, and the Hub gave nothing (offline, or no such "
            f"repository?): {reason[0]}"
        ) from error
    if not list(epath.Path(folder).glob("*.safetensors")):
        raise ValueError(f"{source}: the repository holds no safetensors file; pickles are refused")
    return epath.Path(folder)
