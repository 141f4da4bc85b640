"""Real processes on this machine: they train as one, stop as one, and miss who is gone."""

import functools
import json
import signal
import time

import pytest

from fourm_jax.train.metrics import read_history
from fourm_jax.utils import interrupt
from tests.parallel.test_channel import free_port
from tests.stress import children

CONFIG = {"num_steps": 6, "checkpoint_every": 2, "log_every": 2, "batch_size": 8}
ENDLESS = {**CONFIG, "num_steps": 100_000, "checkpoint_every": 1000, "log_every": 100}


def start(nursery, workdir, *, count=2, num_devices=1, others=None, **config):
    """Processes of one run; `others` are options in which those after the first differ."""
    address = f"127.0.0.1:{free_port()}"
    peers = [
        {
            "coordinator": address,
            "process_id": number,
            "process_count": count,
            "num_devices": num_devices,
            "timeout_seconds": 60,
        }
        for number in range(count)
    ]
    options = [{**config, **((others or {}) if number else {})} for number in range(count)]
    return [
        nursery.train(workdir, peers=one, **more) for one, more in zip(peers, options, strict=True)
    ]


def codes(processes):
    return [process.code() for process in processes]


def logs(processes):
    return "\n".join(process.log for process in processes)


def losses(workdir):
    return {point["step"]: point["loss"] for point in read_history(workdir)}


@pytest.fixture(scope="module")
def losses_of_one(nursery, tmp_path_factory):
    """Losses of one process on one device, by task; each is trained once."""

    @functools.cache
    def train(task):
        workdir = tmp_path_factory.mktemp("one")
        one = nursery.train(workdir, task=task, **CONFIG)
        assert one.code() == 0, one.log
        return losses(workdir)

    return train


@pytest.mark.parametrize(
    ("task", "count", "num_devices", "sizes"),
    [
        ("tokenizer", 2, 1, {"mesh__data": 2}),
        *(
            pytest.param(task, count, num_devices, sizes, marks=pytest.mark.scale)
            for task, count, num_devices, sizes in (
                ("tokenizer", 4, 1, {"mesh__data": 2, "mesh__fsdp": 2}),
                ("trunk", 2, 1, {"mesh__data": 2}),
                ("trunk", 2, 2, {"mesh__data": 2, "mesh__fsdp": 2}),
                ("trunk", 2, 2, {"mesh__data": 1, "mesh__fsdp": 4}),
                ("trunk", 2, 2, {"mesh__data": 2, "mesh__tensor": 2}),
                ("trunk", 2, 1, {"mesh__data": 1, "mesh__tensor": 2}),
                ("trunk", 4, 1, {"mesh__data": 2, "mesh__tensor": 2}),
                ("trunk", 4, 1, {"mesh__data": 2, "mesh__fsdp": 2}),
                ("trunk", 4, 2, {"mesh__fsdp": 2, "mesh__tensor": 2}),
            )
        ),
    ],
)
def test_several_processes_reach_the_losses_of_one(
    nursery, losses_of_one, tmp_path, task, count, num_devices, sizes
):
    several = start(
        nursery, tmp_path, task=task, count=count, num_devices=num_devices, **CONFIG, **sizes
    )
    assert codes(several) == [0] * count, logs(several)
    assert losses(tmp_path) == pytest.approx(losses_of_one(task), rel=1e-5)


@pytest.mark.parametrize(
    ("number", "who"),
    [
        (signal.SIGTERM, [1]),
        pytest.param(signal.SIGTERM, [0], marks=pytest.mark.scale),
        pytest.param(signal.SIGTERM, [0, 1], marks=pytest.mark.scale),
        pytest.param(signal.SIGINT, [0, 1], marks=pytest.mark.scale),
    ],
)
def test_a_signal_to_one_process_saves_and_stops_all_of_them(nursery, tmp_path, number, who):
    processes = start(nursery, tmp_path, **ENDLESS)
    processes[0].wait_for_log("first step")
    watch = time.monotonic()
    for one in who:
        processes[one].send(number)
    assert codes(processes) == [interrupt.EXIT_CODE] * 2, logs(processes)
    assert time.monotonic() - watch < 30
    reached = [process.log.partition("stopped at step ")[2].split()[0] for process in processes]
    assert reached == [nursery_step(tmp_path)] * 2
    named = [one for one in range(2) if f"{number.name} to process {one}" in processes[0].log]
    assert named and set(named) <= set(who)  # of two, whose came first, or both


def nursery_step(workdir):
    """Step of the newest checkpoint, as text."""
    return str(max(int(path.name) for path in (workdir / "checkpoints").iterdir()))


@pytest.mark.parametrize(
    ("number", "who"),
    [
        (signal.SIGKILL, 1),
        pytest.param(signal.SIGKILL, 0, marks=pytest.mark.scale),
        pytest.param(signal.SIGSTOP, 1, marks=pytest.mark.scale),
    ],
)
def test_when_one_process_is_gone_the_others_leave_with_its_number(nursery, tmp_path, number, who):
    processes = start(nursery, tmp_path, **ENDLESS)
    processes[0].wait_for_log("first step")
    watch = time.monotonic()
    processes[who].send(number)
    other = processes[1 - who]
    assert other.code() == interrupt.PEER_GONE, other.log
    assert time.monotonic() - watch < 60
    assert f"process {who} (" in other.log and "is gone" in other.log
    processes[who].send(signal.SIGKILL)


def test_a_config_that_differs_between_processes_is_refused_by_all(nursery, tmp_path):
    processes = start(nursery, tmp_path, **CONFIG, others={"batch_size": 16})
    assert codes(processes) == [children.ERROR] * 2, logs(processes)
    for process in processes:
        assert "config key of the processes differ: batch_size is 8 in process 0 (" in process.log
    assert not (tmp_path / "checkpoints").exists()


def test_a_run_that_hangs_ends_with_the_stacks_of_its_threads(nursery, tmp_path):
    child = nursery.train(tmp_path, stuck_after=2, hang_seconds=3.0, **CONFIG)
    assert child.code() == interrupt.HUNG, child.log
    assert "nothing happened for 3 s in: step 2" in child.log
    assert "prefetch.py" in child.log and "hung: the same command continues" in child.log


@pytest.mark.scale
@pytest.mark.parametrize(
    ("phase", "named"),
    [
        ("compilation", "start"),
        ("step", "step 4"),
        ("evaluation", "evaluation at step 3"),
        ("save", "checkpoint of step 4"),  # waits for that of step 2
    ],
)
def test_a_hang_is_noticed_in_every_phase(nursery, tmp_path, phase, named):
    config = {**CONFIG, "eval_every": 3}
    assert nursery.train(tmp_path / "compiles", **config).code() == 0
    child = nursery.train(tmp_path / "hangs", busy=phase, hang_seconds=4.0, **config)
    assert child.code() == interrupt.HUNG, child.log
    assert f"nothing happened for 4 s in: {named}" in child.log
    assert "hung: the same command continues" in child.log


def batches(folder):
    """{step: digests of its records, those of all processes in their order}."""
    found = {}
    for path in sorted(folder.iterdir()):
        steps = {line["step"]: line["rows"] for line in map(json.loads, path.open())}
        found = {step: found.get(step, []) + rows for step, rows in steps.items()}
    return found


@pytest.mark.scale
@pytest.mark.parametrize("counts", [(2, 1), (1, 2), (2, 4)])
def test_a_run_continues_in_data_order_with_another_number_of_processes(nursery, tmp_path, counts):
    config = {**CONFIG, "task": "trunk", "optimizer__schedule": "constant"}
    before, after = counts
    first = start(
        nursery,
        tmp_path / "n",
        count=before,
        batches_to=str(tmp_path / "first"),
        **{**config, "num_steps": 100_000},
    )
    first[0].wait_for_log("first step")
    first[0].send(signal.SIGTERM)
    assert codes(first) == [interrupt.EXIT_CODE] * before, logs(first)
    stopped_at = int(nursery_step(tmp_path / "n"))
    config["num_steps"] = stopped_at + 4
    again = start(
        nursery, tmp_path / "n", count=after, batches_to=str(tmp_path / "again"), **config
    )
    one = nursery.train(tmp_path / "1", batches_to=str(tmp_path / "one"), **config)
    assert codes([*again, one]) == [0] * (after + 1), logs([*again, one])
    seen = [batches(tmp_path / name) for name in ("first", "again", "one")]
    for step in range(config["num_steps"]):
        read = seen[0] if step < stopped_at else seen[1]
        assert len(read[step]) == CONFIG["batch_size"]
        assert read[step] == seen[2][step], f"batch {step}"
    assert losses(tmp_path / "n") == pytest.approx(losses(tmp_path / "1"), rel=1e-4)


@pytest.mark.scale
@pytest.mark.parametrize("phase", ["compilation", "step", "evaluation"])
def test_a_process_that_is_gone_is_missed_whatever_the_others_do(nursery, tmp_path, phase):
    processes = start(nursery, tmp_path, busy=phase, **{**ENDLESS, "eval_every": 3})
    processes[0].wait_for_log("busy")
    watch = time.monotonic()
    processes[1].kill()
    assert processes[0].code() == interrupt.PEER_GONE, processes[0].log
    assert time.monotonic() - watch < 60
    assert "process 1 (" in processes[0].log and "is gone" in processes[0].log


@pytest.mark.scale
def test_a_signal_to_one_process_in_an_evaluation_saves_on_all_after_it(nursery, tmp_path):
    config = {**ENDLESS, "eval_every": 3}
    processes = start(nursery, tmp_path, busy="long evaluation", **config)
    processes[1].wait_for_log("busy")
    watch = time.monotonic()
    processes[1].send(signal.SIGTERM)
    assert codes(processes) == [interrupt.EXIT_CODE] * 2, logs(processes)
    assert time.monotonic() - watch < 30
    reached = [process.log.partition("stopped at step ")[2].split()[0] for process in processes]
    assert reached == [nursery_step(tmp_path)] * 2


@pytest.mark.scale
def test_two_processes_log_the_measures_on_held_out_records_of_one(nursery, tmp_path):
    features = {"first": "tok_depth", "features": "encoder", "num_records": 12}
    config = {**CONFIG, "task": "trunk", "eval_every": 3, "evals": {"retrieval": features}}
    several = start(nursery, tmp_path / "2", **config)
    one = nursery.train(tmp_path / "1", **config)
    assert codes([*several, one]) == [0] * 3, logs([*several, one])
    first, second = (
        {
            (p["step"], key): p[key]
            for p in read_history(tmp_path / name)
            for key in p
            if "eval/" in key
        }
        for name in ("1", "2")
    )
    assert {step for step, key in first if key == "eval/loss"} == {3, 6}
    assert {step for step, key in first if key.startswith("eval/retrieval/")} == {6}
    assert second == pytest.approx(first, rel=1e-5)
