"""Runs that are killed, stopped, damaged, doubled or short of disk: nothing is lost or other.

`make test` takes one seed of each; `make test-stress` all of them. Each seed draws its moments and
bytes from a generator of its own, so that a failure is repeated by its name.
"""

import json
import random
import shutil
import signal
import time

import pytest

from fourm_jax.train import metrics
from fourm_jax.utils import interrupt
from tests.stress import children

NUM_STEPS = 30
CONFIG = {"num_steps": NUM_STEPS, "checkpoint_every": 3, "log_every": 3, "keep_checkpoints": 2}


def seeds(count):
    return [0, *(pytest.param(seed, marks=pytest.mark.stress) for seed in range(1, count))]


@pytest.fixture(scope="module")
def straight(nursery, tmp_path_factory):
    """Workdir of a run that nothing happened to, and the seconds that it took."""
    workdir = tmp_path_factory.mktemp("straight") / "w"
    watch = time.monotonic()
    child = nursery.train(workdir, **CONFIG)
    assert child.code() == 0, child.log
    return workdir, time.monotonic() - watch


def history(workdir):
    """All log points as they stand in the file, without what clocks and evaluators say."""
    kept = []
    for point in map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines()):
        of_training = {name: v for name, v in point.items() if not name.startswith("eval/")}
        kept.append({name: v for name, v in of_training.items() if name not in metrics.MEASURED})
    return [point for point in kept if list(point) != ["step"]]


def assert_equal(nursery, workdir, straight):
    """The run ended as if nothing had happened: bits of the parameters and all metrics."""
    expected = nursery.result("state", workdir=str(straight))
    assert expected["step"] == NUM_STEPS
    assert nursery.result("state", workdir=str(workdir)) == expected
    assert history(workdir) == history(straight)


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGKILL,
        pytest.param(signal.SIGTERM, marks=pytest.mark.stress),
        pytest.param(signal.SIGHUP, marks=pytest.mark.stress),
    ],
)
@pytest.mark.parametrize("seed", seeds(5))
def test_a_run_that_is_ended_at_random_moments_ends_as_the_straight_one(
    nursery, straight, tmp_path, seed, number
):
    workdir, seconds = straight
    rng = random.Random(f"{number.name} {seed}")
    for _ in range(2):
        child = nursery.train(tmp_path / "w", **CONFIG)
        child.pid  # noqa: B018  it has started
        time.sleep(rng.uniform(0, seconds))
        child.send(number)
        code = child.code()
        # by the signal itself where the run had no time to say a word, or cannot heed it
        expected = (0, -number) if number == signal.SIGKILL or not child.log else (0, 75)
        assert code in expected, child.log
    child = nursery.train(tmp_path / "w", **CONFIG)
    assert child.code() == 0, child.log
    assert_equal(nursery, tmp_path / "w", workdir)


@pytest.fixture(scope="module")
def seconds(nursery, straight, tmp_path_factory):
    """Seconds of a run whose programs are compiled, as those of runs that are killed are."""
    watch = time.monotonic()
    child = nursery.train(tmp_path_factory.mktemp("again") / "w", **CONFIG)
    assert child.code() == 0, child.log
    return time.monotonic() - watch


@pytest.mark.scale
@pytest.mark.parametrize("seed", range(20))
def test_a_run_that_is_killed_ten_times_ends_as_the_straight_one(
    nursery, straight, seconds, tmp_path, seed
):
    """20 seeds of ten moments each: `make test-scale`; two of them: `make test-kills`."""
    rng, killed = random.Random(f"ten kills {seed}"), 0
    while killed < 10:
        child = nursery.train(tmp_path / "w", **CONFIG)
        child.pid  # noqa: B018  it has started
        time.sleep(rng.uniform(0, seconds / 2))  # it goes on from where the one before came to
        child.kill()
        if child.code() == 0:  # it was through before
            assert_equal(nursery, tmp_path / "w", straight[0])
            shutil.rmtree(tmp_path / "w")
            continue
        assert child.code() == -signal.SIGKILL, child.log
        killed += 1
    child = nursery.train(tmp_path / "w", **CONFIG)
    assert child.code() == 0, child.log
    assert_equal(nursery, tmp_path / "w", straight[0])


@pytest.mark.scale
@pytest.mark.parametrize(
    ("phase", "said"),
    [
        ("compilation", "this was not over: start. Stopped without saving"),
        ("step", "this was not over: step 4. Stopped without saving"),
        ("evaluation", "this was not over: evaluation at step 6. Stopped without saving"),
        ("long evaluation", "stopped at step 6 of 30, state saved"),
        ("save", "state saved"),
    ],
)
def test_a_signal_in_any_phase_ends_with_a_checkpoint_or_a_reason(
    nursery, straight, tmp_path, phase, said
):
    evaluates = {**CONFIG, "eval_every": 6}
    child = nursery.train(tmp_path / "w", busy=phase, latest_seconds=5.0, **evaluates)
    child.wait_for_log(f"busy: {phase}")
    watch = time.monotonic()
    child.send(signal.SIGTERM)
    assert child.code() == interrupt.EXIT_CODE, child.log
    assert time.monotonic() - watch < 30
    assert said in child.log
    if "saved" in said.split():
        stopped_at = int(child.log.partition("stopped at step ")[2].split()[0])
        assert nursery.result("state", workdir=str(tmp_path / "w"))["step"] == stopped_at
    again = nursery.train(tmp_path / "w", **CONFIG)
    assert again.code() == 0, again.log
    assert_equal(nursery, tmp_path / "w", straight[0])


@pytest.mark.stress
@pytest.mark.parametrize("batches", [0, 7])
@pytest.mark.parametrize("number", interrupt.SIGNALS)
def test_a_run_whose_reader_hangs_leaves_when_it_is_asked_to(
    nursery, straight, tmp_path, number, batches
):
    child = nursery.train(tmp_path / "w", stuck_after=batches, **CONFIG)
    child.wait_for_log("stuck")
    time.sleep(1)
    watch = time.monotonic()
    child.send(number)
    assert child.code() == interrupt.EXIT_CODE, child.log
    assert time.monotonic() - watch < 15
    again = nursery.train(tmp_path / "w", **CONFIG)
    assert again.code() == 0, again.log
    assert_equal(nursery, tmp_path / "w", straight[0])


@pytest.mark.stress
@pytest.mark.parametrize("milliseconds", [0, 5, 20, 80])
def test_signals_in_quick_succession_lose_nothing(nursery, straight, tmp_path, milliseconds):
    child = nursery.train(tmp_path / "w", **{**CONFIG, "num_steps": 10_000})
    child.wait_for_log("first step")
    for _ in range(4):
        child.send(signal.SIGTERM)
        time.sleep(milliseconds / 1000)
    assert child.code() == interrupt.EXIT_CODE, child.log
    assert "state saved" in child.log
    stopped_at = int(child.log.partition("stopped at step ")[2].split()[0])
    assert nursery.result("state", workdir=str(tmp_path / "w"))["step"] == stopped_at


@pytest.mark.parametrize("seed", seeds(8))
def test_a_damaged_checkpoint_is_never_taken_for_what_was_written(
    nursery, straight, tmp_path, seed
):
    workdir, _ = straight
    shutil.copytree(workdir, tmp_path / "older")
    shutil.rmtree(tmp_path / "older" / "checkpoints" / str(NUM_STEPS))
    allowed = [
        nursery.result("state", workdir=str(which)) for which in (workdir, tmp_path / "older")
    ]
    assert [state["step"] for state in allowed] == [NUM_STEPS, NUM_STEPS - 3]
    found = nursery.result(
        "damage", workdir=str(workdir), copy=str(tmp_path / "copy"), seed=seed, num_cases=20
    )
    for case in found:
        assert {"step": case.get("step"), "digest": case.get("digest")} in allowed, case


@pytest.mark.stress
@pytest.mark.parametrize("kilobytes", [8, 30])
def test_a_run_on_a_full_disk_says_so_and_continues_when_there_is_room(
    nursery, straight, tmp_path, kilobytes
):
    child = nursery.train(tmp_path / "w", largest_file=1000 * kilobytes, **CONFIG)
    assert child.code() == children.ERROR, child.log
    again = nursery.train(tmp_path / "w", **CONFIG)
    assert again.code() == 0, again.log
    assert_equal(nursery, tmp_path / "w", straight[0])


def test_a_shard_on_a_full_disk_is_named_and_written_when_there_is_room(nursery, tmp_path):
    child = nursery._order("shards", directory=str(tmp_path / "data"), largest_file=2**20)
    assert child.code() == children.ERROR, child.log
    assert "train-00000-of-00002.array_record cannot be written" in child.log
    assert not list((tmp_path / "data").iterdir())
    assert nursery.result("shards", directory=str(tmp_path / "data")) == 200


def test_a_second_run_on_one_workdir_is_refused_and_the_first_unharmed(nursery, straight, tmp_path):
    first = nursery.train(tmp_path / "w", **CONFIG)
    first.wait_for_log("first step")
    second = nursery.train(tmp_path / "w", **CONFIG)
    assert second.code() == children.ERROR or first.has_ended(), second.log
    assert f"in use by process {first.pid} on" in second.log or first.has_ended()
    assert first.code() == 0, first.log
    assert_equal(nursery, tmp_path / "w", straight[0])
