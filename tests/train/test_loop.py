"""The train loop end to end on tiny runs: resume, meshes, stopping, refusals."""

import contextlib
import itertools
import os
import shutil
import signal
import threading
import weakref

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jax.sharding import PartitionSpec as P

from fourm_jax.data import pipeline
from fourm_jax.models import trained as trained_lib
from fourm_jax.parallel import distributed
from fourm_jax.parallel import mesh as mesh_lib
from fourm_jax.train import checkpoint, finite, logbook, loop, metrics, prefetch, run_config
from fourm_jax.train import program as program_lib
from fourm_jax.train import state as state_lib
from fourm_jax.utils import digests, folder_lock, interrupt, io, run_folder, tree, upgrades
from tests.train import tiny

ONE = jax.devices()[:1]
EIGHT = jax.devices()[:8]
SIGNALS = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}


def run(config, workdir, devices=ONE, **options):
    return loop.train(config, workdir, show_progress=False, devices=devices, **options)


def untimed_history(workdir):
    return [
        {name: value for name, value in point.items() if name not in metrics.MEASURED}
        for point in metrics.read_history(workdir)
    ]


def losses(workdir):
    return [point["loss"] for point in metrics.read_history(workdir)]


def assert_equal_bits(one, other):
    one, other = tree.named_leaves(one), tree.named_leaves(other)
    assert one.keys() == other.keys()
    for name, leaf in one.items():
        np.testing.assert_array_equal(np.asarray(leaf), np.asarray(other[name]), err_msg=name)


def flip_a_bit(checkpoint_folder):
    """Flip one bit in the middle of the largest file."""
    largest = max(checkpoint_folder.rglob("*"), key=lambda p: p.is_file() and p.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)


def stop_at(step):
    """Evaluator in which SIGTERM arrives once `step` is reached."""

    def evaluator(state, done):
        if done == step:
            os.kill(os.getpid(), signal.SIGTERM)
        yield "value", float(done)

    return evaluator


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Workdir of a tokenizer run that is through, and its result."""
    workdir = tmp_path_factory.mktemp("tokenizer")
    return workdir, run(tiny.tokenizer(), workdir)


@pytest.fixture(scope="module")
def finished_trunk(tmp_path_factory):
    """The same of a trunk."""
    workdir = tmp_path_factory.mktemp("trunk")
    return workdir, run(tiny.trunk(), workdir)


def test_a_save_that_fails_in_the_background_stops_the_run(tmp_path, monkeypatch):
    def full_disk(self, directory):
        raise OSError(f"no space left on device: {directory}")

    monkeypatch.setattr(ocp.PyTreeCheckpointHandler, "finalize", full_disk)
    with pytest.raises(OSError, match="no space left on device"):
        run(tiny.tokenizer(), tmp_path)
    assert not checkpoint.Checkpointer(tmp_path).steps()


@pytest.mark.parametrize(
    ("make", "straight"), [(tiny.tokenizer, "finished"), (tiny.trunk, "finished_trunk")]
)
def test_a_run_stopped_during_evaluation_and_resumed_repeats_the_straight_one_bit_for_bit(
    make, straight, tmp_path, request
):
    workdir, result = request.getfixturevalue(straight)
    with pytest.raises(interrupt.Interrupted, match="SIGTERM: stopped at step 3 of 6"):
        run(make(eval_every=3), tmp_path, evaluators=[stop_at(3)])
    resumed = run(make(), tmp_path)
    assert int(resumed.state.step) == 6
    assert_equal_bits(result.state, resumed.state)
    assert untimed_history(workdir) == untimed_history(tmp_path)


def test_signals_act_as_before_once_a_run_is_over(finished):
    assert {number: signal.getsignal(number) for number in SIGNALS} == SIGNALS


@pytest.mark.parametrize(
    ("make", "straight", "sizes"),
    [
        (tiny.tokenizer, "finished", {"mesh__data": 8}),
        (tiny.trunk, "finished_trunk", {"mesh__data": 2, "mesh__fsdp": 2, "mesh__tensor": 2}),
    ],
)
def test_eight_devices_reach_the_losses_of_one(make, straight, sizes, tmp_path, request):
    workdir, _ = request.getfixturevalue(straight)
    result = run(make(**sizes), tmp_path, devices=EIGHT)
    np.testing.assert_allclose(losses(tmp_path), losses(workdir), rtol=2e-4)
    assert len(result.state.step.sharding.device_set) == 8


@pytest.mark.parametrize(("before", "after"), [(ONE, EIGHT), (EIGHT, ONE)])
def test_a_checkpoint_of_one_mesh_continues_on_another(before, after, finished, tmp_path):
    def sizes(devices):
        return {"mesh__data": -1, "mesh__fsdp": min(2, len(devices))}

    with pytest.raises(interrupt.Interrupted):
        run(
            tiny.tokenizer(eval_every=3, **sizes(before)), tmp_path, before, evaluators=[stop_at(3)]
        )
    run(tiny.tokenizer(**sizes(after)), tmp_path, after)
    np.testing.assert_allclose(
        losses(tmp_path), losses(finished[0])[: len(losses(tmp_path))], rtol=1e-4
    )


def test_moments_and_average_are_cut_like_their_parameters():
    config = tiny.trunk()
    described = run_config.build(config)
    mesh = mesh_lib.make_mesh(data=2, fsdp=2, tensor=2, devices=EIGHT)
    program = program_lib.make(config, described.task, mesh, next(described.batches(0)))
    kernel = "encoder/blocks/feed_forward/fc1/kernel"
    leaves = tree.named_leaves(program.abstract).items()
    layouts = [leaf.sharding.spec for name, leaf in leaves if name.endswith(kernel)]
    assert layouts == 4 * [P(None, "fsdp", "tensor")]  # parameter, two moments, average


def test_runs_that_differ_in_their_seed_alone_share_a_compilation():
    programs = []
    for seed in (0, 1):
        config = tiny.tokenizer(seed=seed)
        described, mesh = run_config.build(config), mesh_lib.make_mesh(devices=ONE)
        batch = next(described.batches(0))
        one = program_lib.make(config, described.task, mesh, batch)
        with jax.set_mesh(mesh):
            first = one.init.lower(batch, one.root).as_text()
            programs.append((first, one.train_step.lower(one.abstract, batch, one.root).as_text()))
    assert programs[0] == programs[1]


def test_a_step_compiles_once(finished):
    config = tiny.tokenizer()
    described = run_config.build(config)
    mesh = mesh_lib.make_mesh(devices=ONE)
    batch = distributed.put_batch(next(described.batches(0)), mesh)
    program = program_lib.make(config, described.task, mesh, batch)
    state = program.init(batch, program.root)
    book = logbook.Logbook(
        finished[0] / "book",
        state,
        mesh,
        start=0,
        num_steps=3,
        labels=(),
        samples_per_step=8,
        flops_per_sample=None,
        show_progress=False,
    )
    for done in range(3):
        state, _ = program.train_step(state, batch, program.root)
        state = book.take(state, done)
    assert program.train_step._cache_size() == 1


def test_a_finished_run_returns_at_once_with_its_parameters_and_last_values(finished):
    workdir, first = finished
    history = (workdir / metrics.HISTORY).read_bytes()
    second = run(tiny.tokenizer(), workdir)
    assert_equal_bits(first.state.params, second.state.params)
    assert second.metrics == first.metrics
    assert (workdir / metrics.HISTORY).read_bytes() == history


def test_the_average_and_the_codebook_come_back_without_building_the_run(finished):
    workdir, result = finished
    trained = trained_lib.load(workdir)
    assert trained.step == 6
    assert trained.description.config["tokenizer"]["name"] == "rgb"
    assert_equal_bits(trained.params, result.state.ema_params)
    assert_equal_bits(trained.model_state, result.state.model_state)


def test_a_workdir_of_another_run_is_refused_and_left_alone(finished):
    workdir, _ = finished
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    with pytest.raises(ValueError, match=r"another run's.*optimizer.lr is 0.01 there, 0.1 here"):
        run(tiny.tokenizer(optimizer__lr=0.1), workdir)
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*")} == before


def test_a_vocabulary_other_than_the_checkpoints_is_refused_before_any_step(finished_trunk):
    config = tiny.trunk().unlock()
    config.modalities.overrides = {"tok_depth": {"vocab_size": 512}}
    with pytest.raises(ValueError, match=r"tok_depth.vocab_size is 256 there, 512 here"):
        run(config.lock(), finished_trunk[0])


def test_a_cosine_run_may_not_be_extended(tmp_path):
    run(tiny.tokenizer(optimizer__schedule="cosine", num_steps=1), tmp_path)
    with pytest.raises(ValueError, match="num_steps is 1 there, 4 here"):
        run(tiny.tokenizer(optimizer__schedule="cosine", num_steps=4), tmp_path)


def test_a_broken_newest_checkpoint_gives_way_to_the_one_before(tmp_path, capsys):
    straight = run(tiny.tokenizer(checkpoint_every=3), tmp_path)
    checkpoints = tmp_path / run_folder.CHECKPOINTS
    flip_a_bit(checkpoints / "6")
    (checkpoints / "6.broken").mkdir()  # of an earlier accident
    assert trained_lib.load(tmp_path).step == 3  # whoever reads passes it over, nobody renames
    assert (checkpoints / "6").exists()
    again = run(tiny.tokenizer(checkpoint_every=3), tmp_path)
    assert "6 cannot be read (array " in capsys.readouterr().out
    assert (checkpoints / "6.broken-2").exists()
    assert_equal_bits(again.state, straight.state)
    assert untimed_history(tmp_path)[-1]["step"] == 6
    assert trained_lib.load(tmp_path).step == 6


def test_a_run_whose_checkpoints_are_all_damaged_is_refused_every_time(tmp_path):
    run(tiny.tokenizer(checkpoint_every=3), tmp_path)
    for step in ("3", "6"):
        flip_a_bit(tmp_path / run_folder.CHECKPOINTS / step)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"none of the checkpoints \[3, 6\] .* can be read"):
            run(tiny.tokenizer(checkpoint_every=3), tmp_path)
    with pytest.raises(ValueError, match=r"none of the checkpoints \[3, 6\] .* can be read"):
        trained_lib.load(tmp_path)


def test_a_passing_read_error_is_raised_and_nothing_is_passed_over(finished, monkeypatch):
    def fail(*args):
        raise OSError("network is down")

    monkeypatch.setattr(trained_lib, "read_arrays", fail)
    with pytest.raises(OSError, match="network is down"):
        trained_lib.load(finished[0])
    assert (finished[0] / run_folder.CHECKPOINTS / "6").exists()


def test_a_checkpoint_without_digests_is_read_as_before(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "older")
    checkpoints = tmp_path / "older" / run_folder.CHECKPOINTS
    (checkpoints / "6" / digests.FILE).unlink()
    assert_equal_bits(trained_lib.load(tmp_path / "older").params, finished[1].state.ema_params)
    for path in (checkpoints / "6" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with pytest.raises(ValueError, match="none of the checkpoints"):
        trained_lib.load(tmp_path / "older")


def test_a_metric_that_is_newer_than_a_checkpoint_starts_at_zero(finished):
    workdir, result = finished
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), result.state
    )
    newer = abstract.replace(metrics={**abstract.metrics, "newer": abstract.metrics["skipped"]})
    restored = checkpoint.Checkpointer(workdir).restore(newer)
    assert [float(value) for value in restored.metrics["newer"]] == [0.0, 0.0]
    assert_equal_bits(restored.params, result.state.params)
    with pytest.raises(ValueError, match=r"'params/.*' has shape None there"):
        checkpoint.Checkpointer(workdir).restore(newer.replace(params={"w": newer.step}))


def test_a_checkpoint_that_lost_its_description_is_continued_by_nobody(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "older")
    checkpoints = tmp_path / "older" / run_folder.CHECKPOINTS
    (checkpoints / "6" / digests.FILE).unlink()
    shutil.rmtree(checkpoints / "6" / "description")
    with pytest.raises(ValueError, match="none of the checkpoints"):
        run(tiny.tokenizer(optimizer__lr=0.5, num_steps=9), tmp_path / "older")
    assert [path.name for path in checkpoints.iterdir()] == ["6"]


def test_the_config_lies_in_the_workdir(finished):
    assert io.read_json(finished[0] / "config.json")["batch_size"] == 8


def test_a_table_of_the_parameters_lies_in_the_workdir(finished):
    table = (finished[0] / run_folder.PARAMETERS).read_text()
    count = tree.num_elements(finished[1].state.params)
    assert f"Total: {count:,} -- " in table
    assert "Sharding" in table.splitlines()[1]


def test_a_run_of_constant_rate_may_be_extended(finished):
    result = run(tiny.tokenizer(num_steps=8), finished[0])  # last: it changes the workdir
    assert int(result.state.step) == 8


def test_a_key_that_was_renamed_since_is_read_under_its_new_name(tmp_path, monkeypatch):
    before = run(tiny.tokenizer(num_steps=4), tmp_path)
    monkeypatch.setattr(upgrades, "RENAMED_CONFIG_KEYS", {"log_every": "steps_per_point"})
    trained = trained_lib.load(tmp_path)
    assert trained.description.config["steps_per_point"] == 2
    assert_equal_bits(before.state.ema_params, trained.params)


def test_a_field_that_modalities_gained_since_is_not_compared():
    old = checkpoint.Description(config={}, modalities={"rgb": {"kind": "pixels"}})
    new = checkpoint.Description(config={}, modalities={"rgb": {"kind": "pixels", "measure": "x"}})
    checkpoint.check_same_run(old, new, may_change=(), where="here")
    other = checkpoint.Description(config={}, modalities={"rgb": {"kind": "grid", "measure": "x"}})
    with pytest.raises(ValueError, match=r"rgb\.kind is 'pixels' there, 'grid' here"):
        checkpoint.check_same_run(old, other, may_change=(), where="here")


def test_a_run_whose_reader_is_stuck_saves_and_leaves_when_it_is_asked_to(tmp_path, monkeypatch):
    read, stuck = pipeline.make_raw_batches, threading.Event()

    def three_batches(*args, **kwargs):
        yield from itertools.islice(read(*args, **kwargs), 3)
        stuck.wait(3)  # until the loop has used up these and waits for the next one
        os.kill(os.getpid(), signal.SIGTERM)
        stuck.wait()

    monkeypatch.setattr(pipeline, "make_raw_batches", three_batches)
    with pytest.raises(interrupt.Interrupted, match=r"SIGTERM: stopped at step \d of 6") as stopped:
        run(tiny.tokenizer(), tmp_path)
    stuck.set()
    assert stopped.value.code == interrupt.EXIT_CODE
    (step,) = checkpoint.Checkpointer(tmp_path).steps()
    assert f"step {step} of 6" in stopped.value.message


def test_a_batch_is_freed_before_the_next_one_is_awaited(tmp_path, monkeypatch):
    read, freed = prefetch.to_device, []

    def watched(*args, **kwargs):
        with contextlib.closing(read(*args, **kwargs)) as stream:
            handed_on = [next(stream)]
            while True:
                last = weakref.ref(handed_on[0]["rgb"])
                yield handed_on.pop()
                freed.append(last() is None)
                handed_on.append(next(stream))

    monkeypatch.setattr(prefetch, "to_device", watched)
    run(tiny.tokenizer(num_steps=3), tmp_path)
    assert freed == [True, True]


def test_a_signal_before_the_first_step_ends_a_run_at_once(tmp_path, monkeypatch):
    def stuck_at_once(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        yield from itertools.repeat(None)

    monkeypatch.setattr(pipeline, "make_raw_batches", stuck_at_once)
    with pytest.raises(interrupt.Interrupted, match="SIGTERM: stopped before the first step"):
        run(tiny.tokenizer(), tmp_path)
    assert not checkpoint.Checkpointer(tmp_path).steps()


def test_a_workdir_that_another_process_writes_is_refused(tmp_path):
    with folder_lock.hold(tmp_path), pytest.raises(ValueError, match="is in use by process"):
        run(tiny.tokenizer(), tmp_path)
    assert not (tmp_path / run_folder.CHECKPOINTS).exists()


def test_a_run_that_moved_with_its_data_is_the_same_run():
    def description(workdir, current, directory, lr=1.0):
        config = {"optimizer": {"lr": lr}, "data": [{"arguments": {"directory": directory}}]}
        place = trained_lib.Place(workdir=workdir, current=current)
        return checkpoint.Description(config=config, modalities={}, place=place)

    before = description("/a/q/trunk", "/a", "q/data")
    moved = description("/b/renamed/trunk", "/", "b/renamed/data")
    spelled = description("/elsewhere", "/home", "/a/x/../q/data")
    for same in (before, moved, spelled):
        checkpoint.check_same_run(before, same, may_change=(), where="here")
    other_data = description("/b/q/trunk", "/b", "q/other")
    other_run = description("/b/q/trunk", "/b", "q/data", lr=2.0)
    for other in (other_data, other_run):
        with pytest.raises(ValueError, match="another run's"):
            checkpoint.check_same_run(before, other, may_change=(), where="here")


def test_a_short_run_of_updates_that_overflow_ends_with_an_error_and_saves_nothing(tmp_path):
    config = tiny.tokenizer(num_steps=1, optimizer__lr=3.4e38, optimizer__clip_norm=0.0)
    with pytest.raises(FloatingPointError, match=r"update not finite in 1 of the last 1 steps"):
        run(config, tmp_path)
    assert not checkpoint.Checkpointer(tmp_path).steps()


def test_parameters_that_are_no_numbers_are_not_saved():
    arrays = {"w": np.array([1.0, np.nan], np.float32)}
    state = state_lib.TrainState(
        step=np.int32(1), params=arrays, model_state={}, opt_state=(), ema_params=None, metrics={}
    )
    with pytest.raises(FloatingPointError, match=r"after step 1 1 of 1 .* params/w.*not saved"):
        finite.check(state, 1)


def with_keys(config, **keys):
    """A config with keys that older ones lack."""
    config = config.unlock()
    config.update(keys)
    return config.lock()


NAN = float("nan")


def keeping_the_best(workdir, losses_by_step, **changes):
    """A run of 6 steps, or `changes`, that keeps the newest checkpoint and the best one."""

    def evaluator(state, done):
        yield "loss", losses_by_step[done]

    config = tiny.tokenizer(checkpoint_every=2, eval_every=2, keep_checkpoints=1, **changes)
    run(with_keys(config, keep_best=1), workdir, evaluators=[evaluator])
    return checkpoint.Checkpointer(workdir).steps()


@pytest.mark.parametrize("by_step", [{2: 1.0, 4: 5.0, 6: 4.0}, {2: 1.0, 4: NAN, 6: NAN}])
def test_the_best_checkpoints_stay_beside_the_newest(by_step, tmp_path):
    assert keeping_the_best(tmp_path, by_step) == [2, 6]
    assert int(run(tiny.tokenizer(), tmp_path).state.step) == 6  # the newest is continued


def test_the_last_checkpoint_of_a_run_may_be_the_best_when_it_goes_on(tmp_path):
    assert keeping_the_best(tmp_path, {2: 3.0, 4: 2.0, 6: 1.0}) == [6]
    assert keeping_the_best(tmp_path, {8: 2.0}, num_steps=8) == [6, 8]


def test_a_best_metric_that_no_evaluator_measures_ends_a_run_that_is_saved(tmp_path):
    config = with_keys(tiny.tokenizer(eval_every=2), keep_best=1, best_metric="miou")
    with pytest.raises(ValueError, match=r"unknown best_metric of keep_best 'miou'.*accuracy"):
        run(config, tmp_path, evaluators=[lambda state, done: iter([("accuracy", 0.5)])])
    assert checkpoint.Checkpointer(tmp_path).steps() == [2]


def test_a_run_is_not_made_shorter_than_it_is_already(tmp_path):
    run(tiny.tokenizer(num_steps=4), tmp_path)
    with pytest.raises(ValueError, match="num_steps is 4 there, 2 here"):
        run(tiny.tokenizer(num_steps=2), tmp_path)


@pytest.mark.parametrize(("minutes", "steps"), [(1e-9, [2, 4, 6]), (1e9, [6])])
def test_a_run_saves_after_so_many_minutes_too(tmp_path, minutes, steps):
    config = tiny.tokenizer(log_every=2, keep_checkpoints=0)
    run(with_keys(config, checkpoint_minutes=minutes), tmp_path)
    assert checkpoint.Checkpointer(tmp_path).steps() == steps


def test_the_best_need_held_out_losses(tmp_path):
    with pytest.raises(ValueError, match="keep_best needs held-out losses: eval_every is 0"):
        run(with_keys(tiny.tokenizer(), keep_best=1), tmp_path)


def test_a_profile_of_some_steps_lies_in_the_work_directory(tmp_path, capsys):
    run(tiny.tokenizer(), tmp_path, profile_steps=(3, 4))
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
    assert "no profile" not in capsys.readouterr().out
    run(tiny.tokenizer(), tmp_path, profile_steps=(5, 6))
    assert "no profile of steps 5 to 6: this call did not" in capsys.readouterr().out
    with pytest.raises(ValueError, match="profile of the steps 4 to 3"):
        run(tiny.tokenizer(), tmp_path, profile_steps=(4, 3))
