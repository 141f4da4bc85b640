"""Shared by the commands: flag parsing that names the nearest config key, the compile cache."""

import os
import pathlib
import re
import sys

from absl import app, flags, logging

from fourm_jax.utils import config as config_lib


def set_environment(**defaults: str) -> None:
    """Set environment variables that jax reads when it starts, unless the user has set them."""
    cache = pathlib.Path.home() / ".cache" / "fourm_jax" / "compiled"
    for name, value in {"JAX_COMPILATION_CACHE_DIR": str(cache), **defaults}.items():
        os.environ.setdefault(name, value)


def parse(argv: list[str]) -> list[str]:
    """Parse flags; a config key that does not exist names the nearest one."""
    named = [re.match(r"--?config(\.[\w.]+)?(?:=(.*))?$", arg) for arg in argv]
    path = next((m[2] for m in named if m and not m[1] and m[2]), None)
    try:
        if path:
            config = config_lib.load(path)
            for match in named:
                if match and match[1]:
                    config_lib.check_key(config, match[1][1:])
    except ValueError as error:
        sys.exit(f"error: {error}")
    rest = app.parse_flags_with_usage(argv)
    if not flags.FLAGS["verbosity"].present:
        # Libraries log every checkpoint at INFO; our own lines do not go through the log.
        logging.set_verbosity(logging.WARNING)
    return rest
