"""Shared test set-up: eight forced host devices and a persistent compilation cache."""

import gc
import os
import pathlib
import subprocess
import sys

# Tests spend their time compiling: less optimized programs are ready in a third of the time.
FLAGS = (
    "--xla_force_host_platform_device_count=8",
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_parallel_codegen_split_count=1",
    "--xla_cpu_use_fusion_emitters=false",
)


def known_flags() -> str:
    """The flags that this XLA takes: at any other it aborts, so another process tries them."""
    flags = FLAGS
    while True:
        environment = {**os.environ, "XLA_FLAGS": " ".join(flags), "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-c", "import jax; jax.devices()"]
        tried = subprocess.run(command, env=environment, capture_output=True, text=True)
        unknown = [flag for flag in flags if flag in tried.stderr]
        if not tried.returncode or not unknown:
            return environment["XLA_FLAGS"]
        flags = [flag for flag in flags if flag not in unknown]


if "XLA_FLAGS" not in os.environ:  # the workers of pytest inherit it
    os.environ["XLA_FLAGS"] = known_flags()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# In the environment: processes that tests start have them too.
os.environ.update(
    JAX_COMPILATION_CACHE_DIR=str(pathlib.Path(__file__).parents[1] / ".jax_cache"),
    # Small programs too: thousands of them, each read in a quarter of the time it compiles in.
    JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
    JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES="0",
    # Where in Python an operation stands is looked up for each that is lowered; nobody reads it.
    JAX_TRACEBACK_IN_LOCATIONS_LIMIT="0",
)

# Tracing makes objects by the million and few cycles: the collector looks at them less often.
gc.set_threshold(20_000, 20, 50)

import hypothesis  # noqa: E402
import pytest  # noqa: E402

from tests import typechecking  # noqa: E402

# Before the package is imported, by this process and by each worker of pytest.
typechecking.install("fourm_jax")


# The same examples every time, however busy the machine is.
hypothesis.settings.register_profile("suite", deadline=None, derandomize=True)
hypothesis.settings.load_profile("suite")

LONGEST = (
    "test_end_to_end.py",
    "test_loop.py",
    "test_configs.py",
    "test_transfer.py",
    "test_finetune.py",
    "test_several_processes.py",
    "test_runs.py",
    "test_init.py",
    "test_contract.py",
    "test_chain.py",
    "test_add_modality.py",
    "test_transfer_inputs.py",
    "test_control.py",
    "test_replay.py",
    "test_verify.py",
    "test_goldens.py",
    "test_pretokenize.py",
    "test_package.py",
    "test_readme.py",
    "test_fourm.py",
)


def pytest_collection_modifyitems(items):
    """Start with the longest files: no worker is left alone with one of them at the end."""
    items.sort(key=lambda item: [*LONGEST, item.path.name].index(item.path.name))


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item, nextitem):
    """After each file, put what lives on (modules, jax's caches) out of reach of the collector.

    A full collection otherwise looks at all of it, up to a second long in the middle of each test.
    """
    if nextitem is None or nextitem.path != item.path:
        gc.collect()
        gc.freeze()


@pytest.fixture(scope="session")
def nursery(tmp_path_factory):
    """Starts processes that have imported everything, with one compilation cache."""
    from tests.stress import children

    nursery = children.Nursery(tmp_path_factory.mktemp("children"))
    yield nursery
    nursery.close()


@pytest.fixture(scope="session")
def toy_quickstart(tmp_path_factory):
    """A run of the quickstart in miniature, for tests that read it."""
    from tests import test_end_to_end  # after the flags above are set

    workdir = tmp_path_factory.mktemp("quickstart")
    command = [*test_end_to_end.QUICKSTART, f"--workdir={workdir}"]
    made = test_end_to_end.run([*command, "--config=configs/quickstart.py:runlocal"])
    assert made.returncode == 0, made.stderr
    return workdir
