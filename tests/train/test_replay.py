"""A step of a run repeated from its checkpoint, and the overview of what a run holds."""

import jax
import pytest

from fourm_jax.parallel import mesh as mesh_lib
from fourm_jax.train import loop, metrics, overview, program, replay, run_config
from tests.train import tiny

ONE = jax.devices()[:1]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run of 6 steps with a log point at each, whose checkpoints are those of 2, 4 and 6."""
    workdir = tmp_path_factory.mktemp("replayed")
    config = tiny.trunk(log_every=1, checkpoint_every=2, keep_checkpoints=0, mesh__data=1)
    loop.train(config, workdir, show_progress=False, devices=ONE)
    return workdir


@pytest.mark.parametrize(("step", "start"), [(4, 4), (3, 2)])
def test_a_step_has_the_loss_that_the_run_logged(workdir, step, start):
    found = replay.replay(workdir, step, devices=ONE)
    (logged,) = [p for p in metrics.read_history(workdir) if p["step"] == step + 1]
    assert (found["step"], found["from"]) == (step, start)
    assert found["loss"] == pytest.approx(logged["loss"], rel=1e-6)
    assert found["grad_norm"] == pytest.approx(logged["grad_norm"], rel=1e-5)
    assert found["not_finite"] == {"batch": [], "params": [], "grads": []}


def test_a_step_can_be_repeated_on_other_devices_than_the_runs(workdir, capsys):
    found = replay.replay(workdir, 4, devices=jax.devices()[:2])
    (logged,) = [p for p in metrics.read_history(workdir) if p["step"] == 5]
    assert found["loss"] == pytest.approx(logged["loss"], rel=1e-4)
    assert "another mesh than the run's" in capsys.readouterr().out


def test_a_step_before_all_checkpoints_is_refused(workdir):
    with pytest.raises(ValueError, match=r"no checkpoint of step 1 or before .*kept: \[2, 4, 6\]"):
        replay.replay(workdir, 1, devices=ONE)


def test_a_step_beyond_the_run_is_refused(workdir):
    with pytest.raises(ValueError, match=r"step 7, allowed: 0\.\.6, the steps of the run"):
        replay.replay(workdir, 7, devices=ONE)


def test_the_overview_counts_the_bytes_of_every_array_on_one_device():
    mesh = mesh_lib.make_mesh(data=1, fsdp=2, tensor=2, devices=jax.devices()[:4])
    config = tiny.trunk(mesh={"data": 1, "fsdp": 2, "tensor": 2})
    batch = run_config.abstract_batch(config, mesh)
    abstract = program.make(config, run_config.make_task(config), mesh, batch).abstract
    rows = {row.Name: row for row in overview.rows(abstract, "params")}
    fc1 = rows["encoder/blocks/feed_forward/fc1/kernel"]  # [1 block, 16, 32] cut in 2 × 2
    assert (fc1.Shape, fc1.Spec, fc1.Bytes) == ((1, 16, 32), (None, "fsdp", "tensor"), 4 * 16 * 8)
    text = overview.table(abstract)
    total = sum(row.Bytes for part in overview.PARTS for row in overview.rows(abstract, part))
    assert f"{total:,} bytes per device, 4 device(s)" in text
