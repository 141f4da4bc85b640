"""Shared by the commands: how one starts and ends, its flags, the compile cache."""

import os
import pathlib
import re
import sys
from collections.abc import Callable

from absl import app, flags, logging

from fourm_jax.utils import config as config_lib

# What a user, a full disk or too high a learning rate can cause; all else is a defect of ours.
EXPECTED = (ValueError, OSError, FloatingPointError)
_CONFIG_FLAG = re.compile(r"--?config(?:\.(?P<key>[\w.\[\]]+))?(?:=(?P<value>.*))?$")


def set_environment(**defaults: str) -> None:
    """Set environment variables that jax reads when it starts, unless the user has set them."""
    cache = pathlib.Path.home() / ".cache" / "fourm_jax" / "compiled"
    for name, value in {"JAX_COMPILATION_CACHE_DIR": str(cache), **defaults}.items():
        os.environ.setdefault(name, value)


def run(main: Callable[[], None], *, config: str = "") -> None:
    """Parse the flags and call `main`; wrong input ends in one line (--verbosity=1: a traceback).

    Args:
      config: what --config is where the user names none.
    """

    def guarded(argv: list[str]) -> None:
        if len(argv) > 1:
            sys.exit(f"error: unknown arguments {argv[1:]}")
        try:
            main()
        except EXPECTED as error:
            if flags.FLAGS.verbosity > 0:
                raise
            sys.exit(f"error: {error}")
        except KeyboardInterrupt:
            sys.exit("interrupted")

    if config and not any(_path(sys.argv, number) for number in range(len(sys.argv))):
        sys.argv.insert(1, f"--config={config}")
    app.run(guarded, flags_parser=parse)


def parse(argv: list[str]) -> list[str]:
    """Parse flags; a config key that does not exist names the nearest one."""
    paths = [path for number in range(len(argv)) if (path := _path(argv, number))]
    named = [match["key"] for match in map(_CONFIG_FLAG.match, argv) if match and match["key"]]
    try:
        if paths:
            config = config_lib.load(paths[-1])
            for key in named:
                config_lib.check_key(config, key)
        rest = flags.FLAGS(argv)
    except (ValueError, flags.Error) as error:
        sys.exit(f"error: {error}")
    if not flags.FLAGS["verbosity"].present:
        # Libraries log every checkpoint at INFO; our own lines do not go through the log.
        logging.set_verbosity(logging.WARNING)
    return rest


def _path(argv: list[str], number: int) -> str:
    """The config file that an argument names, as --config=PATH or --config PATH."""
    match = _CONFIG_FLAG.match(argv[number])
    if not match or match["key"]:
        return ""
    return match["value"] or "".join(argv[number + 1 : number + 2])
