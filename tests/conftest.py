"""Shared test set-up: eight forced host devices and a persistent compilation cache."""

import os
import pathlib

# Tests spend their time compiling: less optimised programs are ready in half the time.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0 "
    "--xla_llvm_disable_expensive_passes=true",
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax

CACHE = pathlib.Path(__file__).parents[1] / ".jax_cache"
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


LONGEST = ("test_end_to_end.py", "test_configs.py", "test_readme.py")


def pytest_collection_modifyitems(items):
    """Start with the longest files, so that no worker is left alone with one at the end."""
    items.sort(key=lambda item: [*LONGEST, item.path.name].index(item.path.name))
