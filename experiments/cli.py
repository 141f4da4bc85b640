"""Shared by the commands: how one starts and ends, its flags and config, the compile cache."""

import contextlib
import functools
import importlib
import importlib.util
import os
import pathlib
import re
import resource
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags, logging
from etils import epath

from fourm_jax.utils import config as config_lib
from fourm_jax.utils import errors, interrupt

flags.disclaim_key_flags()  # what `define_path` defines belongs to the command that calls it

# What a user, a full disk or too high a learning rate can cause; all else is a defect of ours.
EXPECTED = (ValueError, OSError, FloatingPointError, MemoryError)
SMALLER = "Take fewer samples at once or a smaller model"
CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
OPEN_FILES = (2**16, 10_240)  # that a command asks for; the second is what macOS gives
REMOTE = {"gs": "gcsfs", "s3": "s3fs"}  # schemes of paths, and what reads them
_CONFIG_FLAG = re.compile(r"--?config(?:\.(?P<key>[\w.\[\]]+))?(?:=(?P<value>.*))?$")
SOURCE = (
    "What is read: a run folder, a folder or .safetensors file of a converted or published "
    "checkpoint, or a Hub id such as EPFL-VILAB/4M-21_B."
)


def set_environment(**defaults: str) -> None:
    """Set environment variables that jax reads when it starts, unless the user has set them."""
    cache = pathlib.Path.home() / ".cache" / "fourm_jax" / "compiled"
    for name, value in {"JAX_COMPILATION_CACHE_DIR": str(cache), **defaults}.items():
        os.environ.setdefault(name, value)
    _use_large_pages()


def _use_large_pages() -> None:
    """Start this command again with large memory pages, where Linux gives them on request only.

    A step on a CPU takes its working memory anew each time, and the first use of every page of
    4 KiB is a call of the kernel: filling an array of 160 MB took 140 ms, and 45 ms in large ones.
    No result depends on it. glibc reads the setting when a process starts, and processes started
    from here inherit it.
    """
    main = getattr(sys.modules["__main__"], "__file__", None) or ""
    if pathlib.Path(main).parent != pathlib.Path(__file__).parent or "GLIBC_TUNABLES" in os.environ:
        return  # imported by something else, or set already
    on_request = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if on_request.exists() and "[madvise]" in on_request.read_text():
        os.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"  # others than glibc ignore it
        os.execv(sys.executable, sys.orig_argv)


def allow_open_files() -> None:
    """Let this process, and those that it starts, open as many files as the system allows.

    The readers of TFDS stay open, and large data sets have a thousand shards and more, where Linux
    lets a process have 1,024 files unless it asks, and macOS 256.
    """
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in OPEN_FILES:
        possible = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
        if allowed == resource.RLIM_INFINITY or allowed >= possible:
            return
        with contextlib.suppress(ValueError, OSError):  # more than the kernel of macOS takes
            resource.setrlimit(resource.RLIMIT_NOFILE, (possible, most))
            return


def define_path(
    name: str, default: str | None, help: str, *, required: bool = False, written: str = ""
) -> flags.FlagHolder[Any]:
    """Define a flag that names a file or folder (or, for --source, a Hub id) as an `epath.Path`.

    Args:
      written: "file" or "folder" that the command writes; checked before anything else is done.
    """
    serializer: flags.ArgumentSerializer = flags.ArgumentSerializer()
    holder = flags.DEFINE(
        _PathParser(), name, default, help, serializer=serializer, required=required
    )
    if written:
        flags.register_validator(name, functools.partial(check_writable, kind=written))
    return holder


def define_names(
    name: str,
    default: Sequence[str] | None,
    help: str,
    *,
    repeatable: bool = False,
    required: bool = False,
) -> flags.FlagHolder[Any]:
    """Define a flag that lists names, or texts NAME=VALUE, each name once.

    Args:
      repeatable: texts may hold commas, and each has a flag of its own.
    """
    define = flags.DEFINE_multi_string if repeatable else flags.DEFINE_list
    holder: flags.FlagHolder[Any] = define(name, default, help, required=required)
    flags.register_validator(name, _are_distinct)
    return holder


def _are_distinct(texts: list[str] | None) -> bool:
    try:
        errors.check_distinct("name", (text.partition("=")[0] for text in texts or ()))
    except ValueError as error:
        raise flags.ValidationError(str(error)) from error
    return True


def check_writable(path: epath.Path | None, kind: str) -> bool:
    """Whether a "folder" or "file" can be made at a local path; leaves nothing behind.

    Raises:
      flags.ValidationError: something on the way is no folder, or nothing can be made in it.
    """
    if path is None or "://" in str(path):  # a bucket says so when it is written to
        return True
    place = pathlib.Path(path)
    folder = next(folder for folder in (place, *place.absolute().parents) if folder.exists())
    if folder == place and kind == "file" and folder.is_file():  # which is replaced
        folder = place.absolute().parent
    try:
        with tempfile.TemporaryDirectory(dir=folder):
            return True
    except OSError as error:
        raise flags.ValidationError(f"cannot be written: {folder}: {error.strerror}") from error


class _PathParser(flags.ArgumentParser):
    """Paths of all commands: "~" is the home folder, an empty path is refused."""

    syntactic_help = "a path"

    def parse(self, argument: str | os.PathLike) -> epath.Path:
        if not str(argument).strip():
            raise ValueError("the path is empty")
        scheme, slashes, _ = str(argument).partition("://")
        package = REMOTE.get(scheme) if slashes else None
        if package and importlib.util.find_spec(package) is None:
            raise ValueError(f"{scheme}:// needs {package}: pip install {package}")
        return epath.Path(argument).expanduser()

    def flag_type(self) -> str:
        return "path"


def run(main: Callable[[], None], *, config: str = "") -> None:
    """Parse the flags and call `main`; wrong input ends in one line (--verbosity=1: a traceback).

    Args:
      config: what --config is where the user names none.
    """

    def guarded(argv: list[str]) -> None:
        if len(argv) > 1:
            sys.exit(f"error: unknown arguments {argv[1:]}")
        try:
            from fourm_jax.utils import device_memory  # jax, after `set_environment`

            allow_open_files()
            _print_notes()
            with interrupt.leave_on_signal(), device_memory.explained(SMALLER):
                main()
        except interrupt.Interrupted as stopped:
            print(stopped, file=sys.stderr, flush=True)
            _leave_others(interrupt.EXIT_CODE)
            interrupt.exit_in_time()
            raise
        except EXPECTED as error:
            if flags.FLAGS.verbosity > 0:
                raise
            print(f"error: {error}", file=sys.stderr, flush=True)
            _leave_others(1)
            sys.exit(1)
        except Exception:
            _leave_others(1, traceback.print_exc)
            raise

    if config and not any(_config_value(sys.argv, number) for number in range(len(sys.argv))):
        sys.argv.insert(1, f"--config={config}")
    app.run(guarded, flags_parser=parse)


def _print_notes() -> None:
    """Print warnings of our own as one line each: where in our code they are said helps no user."""
    usual = warnings.formatwarning

    def line_of(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        line: str | None = None,
    ) -> str:
        if category.__module__.partition(".")[0] == "fourm_jax":
            return f"note: {message}\n"
        return usual(message, category, filename, lineno, line)  # a library has to be found

    warnings.formatwarning = line_of


def _leave_others(code: int, first: Callable[[], object] = lambda: None) -> None:
    """As one of several processes, end this one; else do nothing. `first` may say why."""
    distributed = sys.modules.get("fourm_jax.parallel.distributed")
    if distributed is not None and distributed.has_peers():
        first()
        distributed.leave(code)


def parse(argv: list[str]) -> list[str]:
    """Parse flags; a config, key or flag that does not exist names the nearest one."""
    try:
        argv[:] = [*argv[:1], *locate_configs(argv[1:])]
        values = [value for number in range(len(argv)) if (value := _config_value(argv, number))]
        named = [match["key"] for match in map(_CONFIG_FLAG.match, argv) if match and match["key"]]
        if values:
            config = config_lib.load(values[-1])
            for key in named:
                config_lib.check_key(config, key)
        rest = flags.FLAGS(argv)
    except flags.UnrecognizedFlagError as error:
        if error.flagname == "workdir" and "source" in flags.FLAGS:
            sys.exit("error: unknown flag --workdir: a model that is read is named with --source")
        sys.exit(f"error: {error}")
    except (ValueError, flags.Error) as error:
        sys.exit(f"error: {error}")
    if not flags.FLAGS["verbosity"].present:
        # Libraries log every checkpoint at INFO; our own lines do not go through the log.
        logging.set_verbosity(logging.WARNING)
    return rest


def locate_configs(arguments: list[str]) -> list[str]:
    """Return command line arguments in which every --config names a file that exists.

    Raises:
      ValueError: a config that is neither a file nor one of those in configs/.
    """
    located = list(arguments)
    for number, argument in enumerate(arguments):
        value = _config_value(arguments, number)
        if argument in ("--config=", "-config="):
            raise ValueError(f"{argument} names no config; allowed: {config_names()}")
        if value and "=" in argument:
            located[number] = f"--config={find_config(value)}"
        elif value:
            located[number + 1] = find_config(value)
    return located


def find_config(named: str) -> str:
    """The file, and argument, of a config: a file, else a name below configs/, ".py" or not.

    Example: find_config("scenes:size=nano") is "<where the configs are>/scenes.py:size=nano".

    Raises:
      ValueError: there is none; names the nearest of configs/.
    """
    name, colon, argument = named.partition(":")
    path = pathlib.Path(name).expanduser()
    if path.suffix == ".py" and path.is_file():
        return f"{path}{colon}{argument}"
    short = name.removeprefix("configs/").removesuffix(".py")
    if not _is_config(short):
        raise ValueError(errors.unknown_value("config", name, config_names()))
    return f"{CONFIGS / short}.py{colon}{argument}"


def config_names() -> list[str]:
    """Names of the configs that come with the commands, such as "scenes", "data/scenes"."""
    files = (path.relative_to(CONFIGS).with_suffix("") for path in CONFIGS.rglob("*.py"))
    return sorted(name for name in (file.as_posix() for file in files) if _is_config(name))


def _is_config(name: str) -> bool:
    parts = name.split("/")
    if not all(map(str.isidentifier, parts)) or not (CONFIGS / f"{name}.py").is_file():
        return False
    return hasattr(importlib.import_module(".".join((CONFIGS.name, *parts))), "get_config")


def _config_value(argv: list[str], number: int) -> str:
    """The config that an argument names, as --config=NAME or --config NAME."""
    match = _CONFIG_FLAG.match(argv[number])
    if not match or match["key"]:
        return ""
    if match["value"] is not None:
        return match["value"]
    return "".join(argv[number + 1 : number + 2])
