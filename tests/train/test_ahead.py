"""Steps compiled for TPUs and GPUs that are not here, and what their HLO says."""

import importlib.util
import re

import jax
import pytest

from configs import fourm
from fourm_jax.parallel import collectives, hlo, topology
from fourm_jax.parallel import mesh as mesh_lib
from fourm_jax.train import ahead, program, run_config
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import tree
from tests.train import tiny

needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed"
)
needs_gpu_compiler = pytest.mark.skipif(
    topology.cuda_version() is None, reason="JAX's plugin for CUDA is not installed"
)


@pytest.fixture
def tpu_flags(monkeypatch):
    """libtpu ends a process whose XLA_FLAGS name flags of a CPU's compiler that it lacks."""
    jax.devices()  # those of the CPU are read here
    monkeypatch.delenv("XLA_FLAGS", raising=False)


def config(**changes):
    """The mod21 model with its vocabularies, narrow and one layer deep."""
    small = {
        "model.dim": 128,
        "model.num_heads": 2,
        "model.encoder_depth": 1,
        "model.decoder_depth": 1,
        "masking.num_inputs": 64,
        "masking.num_targets": 64,
        "batch_size": 32,
    }
    named = {key.replace("__", "."): value for key, value in changes.items()}
    return config_lib.override(fourm.get_config("mix=mod21,size=large"), {**small, **named})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v9:2x2", "unknown TPU 'v9'"),
        ("gpu:8xk80", "unknown GPU 'k80'"),
        ("gpu:0xh100", r"allowed: .* or gpu:COUNTxKIND as gpu:8xh100"),
        ("v5e-256", r"allowed: KIND:SHAPE as v5e:16x16"),
    ],
)
def test_a_topology_that_does_not_exist_is_refused(name, message):
    with pytest.raises(ValueError, match=message):
        topology.find(name)


def test_without_the_compiler_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "libtpu", None)
    with pytest.raises(ValueError, match=r"needs libtpu .*pip install 'fourm_jax\[tpu\]'"):
        topology.find("v5e:2x2")
    monkeypatch.setattr(topology, "cuda_version", lambda: None)
    with pytest.raises(ValueError, match=r"needs jax-cuda12-plugin .*'fourm_jax\[cuda\]'"):
        topology.find("gpu:1xh200")


@needs_compiler
def test_every_slice_holds_a_part_of_the_data_axis():
    devices = topology.find("v5e:2x2*2").devices
    grid = mesh_lib.make_mesh(data=2, fsdp=4, devices=devices)
    slices = [[one.slice_index for one in row] for row in grid.devices[:, :, 0]]
    assert slices == [[0] * 4, [1] * 4]
    with pytest.raises(ValueError, match="on 2 slices: data must be a multiple of 2"):
        mesh_lib.make_mesh(data=1, fsdp=8, devices=devices)


def test_shapes_of_a_batch_are_those_of_the_data_without_the_data():
    runnable = tiny.trunk()
    mesh = mesh_lib.make_mesh(devices=jax.devices()[:1])
    batch = next(run_config.build(runnable).batches(0))
    found = run_config.abstract_batch(runnable, mesh)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), batch) == jax.tree.map(
        lambda x: (x.shape, x.dtype), found
    )


def test_records_that_do_not_divide_and_tokenizers_are_refused():
    mesh = mesh_lib.make_mesh(devices=jax.devices()[:8])
    with pytest.raises(ValueError, match=r"6 records of a batch do not divide over the mesh"):
        run_config.abstract_batch(tiny.trunk(batch_size=6), mesh)
    with pytest.raises(ValueError, match="known from its data alone"):
        run_config.abstract_batch(tiny.tokenizer(), mesh)


@pytest.mark.parametrize(
    ("largest", "tried", "found"),
    [
        (100, [32, 64, 128, 96, 112], 96),  # on 8 chips: in eights
        (20, [32, 16, 24], 16),
        (3, [32, 16, 8], 8),
    ],
)
def test_the_largest_batch_is_found_and_every_try_is_told(monkeypatch, largest, tried, found):
    def report(config, place):
        size = config.batch_size
        fits = size <= largest
        return {"fits": fits, "bytes": size, "memory_bytes": 2**30, "compile_s": 1, "batch": size}

    monkeypatch.setattr(ahead, "report", report)
    place = topology.Topology(name="here", devices=jax.devices()[:8], memory_bytes=2**30)
    lines = []
    row = ahead.largest_batch(config(), place, lines.append)
    assert row["batch"] == found
    assert [int(line.split()[1].strip(":")) for line in lines] == tried
    assert row["tried"] == {str(size): size <= largest for size in sorted(tried)}
    assert lines[0].endswith("1.00 GiB (1 s)")


@needs_compiler
@pytest.mark.scale
@pytest.mark.usefixtures("tpu_flags")
def test_a_compiled_step_is_cut_as_the_rules_say_and_no_device_meets_a_whole_table():
    """Four chips: two parts of the parameters, two replicas of each."""
    small = config(mesh__data=2, mesh__fsdp=2)
    mesh = mesh_lib.make_mesh(devices=topology.find("v5e:2x2").devices, **small.mesh.to_dict())
    compiled = ahead.compile_step(small, mesh)
    batch = run_config.abstract_batch(small, mesh)
    parts = program.make(small, run_config.make_task(small), mesh, batch)
    (state, *_), _ = compiled.input_shardings
    expected = tree.named_leaves(parts.abstract)
    for name, found in tree.named_leaves(state).items():
        leaf = expected[name]
        assert found.is_equivalent_to(leaf.sharding, len(leaf.shape)), name
    text = compiled.as_text()
    num_rows, dim = parts.abstract.params["decoder_embedding"]["tokens"].shape
    assert (num_rows, dim) == (274_208, 128)
    slots = 32 // 4 * 64
    assert not re.search(rf"\[({slots},{num_rows}|{num_rows},{slots})\]", text)
    assert f"[{num_rows},{dim}]" not in text  # neither gathered nor as the sum of a gradient
    found = collectives.read(hlo.parse(text), mesh.size)
    of_table = [one for one in found if f"[{num_rows}," in "".join(one.arrays)]
    # replicas sum the gradients of their part: of the encoder's table, and of the decoder's, whose
    # rows are heads too
    assert {(one.kind, one.arrays, one.num_devices) for one in of_table} == {
        ("all-reduce", (f"f32[{num_rows},{dim // 2}]",), 2)
    }
    assert len(of_table) == 2


@needs_compiler
@pytest.mark.scale
@pytest.mark.usefixtures("tpu_flags")
def test_a_step_that_does_not_fit_says_how_many_bytes_are_missing():
    row = ahead.report(config(batch_size=2**16), topology.find("v5e:2x2"))
    assert not row["fits"]
    assert 15 * 2**30 < row["memory_bytes"] <= 16 * 2**30
    assert row["bytes_over"] == row["bytes"] - row["memory_bytes"] > 0


@needs_gpu_compiler
@pytest.mark.scale
def test_a_step_of_eight_gpus_is_planned_and_sends_what_fsdp_needs():
    """Kernels for one GPU take rows of 256: here they would gather the arrays of all devices."""
    small = config(mesh__data=1, mesh__fsdp=8, model__dim=256, model__num_heads=4)
    row = ahead.report(small, topology.find("gpu:8xh100"))
    assert row["fits"]
    assert row["device"] == "NVIDIA H100 80GB HBM3"
    assert row["argument_bytes"] > 12 / 8 * row["parameters"]  # and the batch
    assert row["least_ms"]["sum"]["tflop"] > row["model_flops"] / 1e12 / 2
    assert row["wire_bytes_of_fsdp"] / 2 < row["wire_bytes"] < 4 * row["wire_bytes_of_fsdp"]
    assert not [one for one in row["largest_kernels"] if "pallas" in one["name"]]


@needs_gpu_compiler
def test_gpus_of_a_host_are_one_process_and_hosts_follow_each_other():
    devices = topology.find("gpu:2xa100*2").devices
    assert [one.process_index for one in devices] == [0, 0, 1, 1]
