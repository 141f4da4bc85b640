"""Shared test set-up: eight forced host devices and a persistent compilation cache."""

import importlib.util
import mmap
import os
import pathlib

# Tests spend their time compiling: less optimised programs are ready in a third of the time.
FLAGS = (
    "--xla_force_host_platform_device_count=8",
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_parallel_codegen_split_count=1",
    "--xla_cpu_use_fusion_emitters=false",
)


def known_flags() -> str:
    """The flags that this version of XLA knows: it refuses to start with any other."""
    folder = pathlib.Path(importlib.util.find_spec("jaxlib").origin).parent
    with (folder / "libjax_common.so").open("rb") as file:
        code = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        names = {flag: flag[2:].partition("=")[0].encode() for flag in FLAGS}
        return " ".join(flag for flag in FLAGS if code.find(names[flag]) >= 0)


if "XLA_FLAGS" not in os.environ:  # the workers of pytest inherit it
    os.environ["XLA_FLAGS"] = known_flags()
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax  # noqa: E402

CACHE = pathlib.Path(__file__).parents[1] / ".jax_cache"
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


LONGEST = ("test_end_to_end.py", "test_configs.py", "test_readme.py")


def pytest_collection_modifyitems(items):
    """Start with the longest files, so that no worker is left alone with one at the end."""
    items.sort(key=lambda item: [*LONGEST, item.path.name].index(item.path.name))
