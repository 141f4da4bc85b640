"""What is said of the memory of a program that was compiled for other devices."""

import pytest

from fourm_jax.parallel import gpus, planned_memory, topology


@pytest.mark.parametrize(
    ("message", "found"),
    [
        ("RESOURCE_EXHAUSTED: … Used 18.50G of 15.75G hbm. Exceeded", (18.5, 15.75)),
        (
            "RESOURCE_EXHAUSTED: E1000: the total memory required for HLO temporaries (34.88G) "
            "exceeds available HBM (15.75G). HLO module: jit_train_step.",
            (34.88, 15.75),
        ),
    ],
)
def test_what_the_compiler_says_about_memory_is_read(message, found):
    too_large = planned_memory.too_large(message)
    assert too_large is not None
    assert (too_large.num_bytes, too_large.limit) == tuple(round(x * 2**30) for x in found)
    assert planned_memory.too_large("INTERNAL: no memory") is None


class Plan:
    """A compiled program of which the memory alone is known."""

    def __init__(self, gib):
        self.argument_size_in_bytes = 3 * 2**30
        self.temp_size_in_bytes = (gib - 3) * 2**30
        self.output_size_in_bytes = self.alias_size_in_bytes = 2**30
        self.generated_code_size_in_bytes = 0
        self.peak_memory_in_bytes = 2**30
        self.host_temp_size_in_bytes = 0

    def memory_analysis(self):
        return self


@pytest.mark.parametrize(
    ("gib", "fits", "setting"),
    [
        (59, True, ""),  # of 79.1: JAX takes 59.3
        (60, True, "XLA_PYTHON_CLIENT_MEM_FRACTION=.95"),  # and then 75.1
        (76, False, "XLA_PYTHON_CLIENT_MEM_FRACTION=.95"),
    ],
)
def test_a_gpu_holds_what_jax_may_take_of_it(gib, fits, setting):
    h100 = gpus.GPUS["h100"]
    place = topology.Topology(name="one", devices=[], memory_bytes=h100.memory_bytes, gpu=h100)
    row = planned_memory.report(Plan(gib), place)
    assert (row["fits"], row["setting"], row["bytes"]) == (fits, setting, gib * 2**30)
    assert row.get("bytes_over", 0) == (0 if fits else row["bytes"] - h100.memory_bytes)
