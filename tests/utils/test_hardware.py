"""Which options of the compiler the programs of each kind of device get."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fourm_jax.utils import hardware


@pytest.fixture(autouse=True)
def no_flags(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")


def test_only_gpus_record_loops_and_branches():
    assert hardware.compiler_options("cpu") is None
    assert hardware.compiler_options("tpu") is None
    ((_, recorded),) = (hardware.compiler_options("gpu") or {}).items()
    assert {"WHILE", "CONDITIONAL", "FUSION"} <= set(recorded.split(","))


def test_what_the_user_says_of_it_counts(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_enable_command_buffer=")
    assert hardware.compiler_options("gpu") is None


def test_this_version_of_xla_knows_the_options():
    options = hardware.compiler_options("gpu")
    sixteen = jax.jit(
        lambda x: jax.lax.fori_loop(0, 4, lambda _, x: 2 * x, x), compiler_options=options
    )
    np.testing.assert_array_equal(sixteen(jnp.ones(2)), [16, 16])
    with pytest.raises(jax.errors.JaxRuntimeError, match="WHILES"):
        wrong = {name: value + "S" for name, value in (options or {}).items()}
        jax.jit(lambda x: x, compiler_options=wrong)(1)
