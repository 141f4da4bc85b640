"""A run tolerates as many bad records as its config says: replaced, counted, listed, resumed."""

import json

import jax
import numpy as np
import pytest

from fourm_jax.data.storage import shard_writer
from fourm_jax.train import loop, metrics
from fourm_jax.utils import interrupt
from tests.train import tiny

BAD = (3, 11)  # of 16 records: pictures of another size


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    directory = tmp_path_factory.mktemp("shards")

    def records(_):
        rng = np.random.default_rng(0)
        for index in range(16):
            side = 16 if index in BAD else 32
            yield {"rgb": rng.integers(0, 256, (side, side, 3), dtype=np.uint8)}

    shard_writer.write_split(directory, "train", {}, 1, records)
    return directory


def config(shards, max_left_out_records, **changes):
    data = (
        {"name": "pictures", "source": "token_shards", "arguments": {"directory": str(shards)}},
    )
    return tiny.tokenizer(
        data=data,
        batch_size=4,
        checkpoint_every=1,
        max_left_out_records=max_left_out_records,
        **changes,
    )


def run(config, workdir, **options):
    return loop.train(config, workdir, show_progress=False, devices=jax.devices()[:1], **options)


def listed(workdir):
    lines = (workdir / "left_out-0.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def timeless(workdir):
    return [
        {name: value for name, value in point.items() if name not in metrics.MEASURED}
        for point in metrics.read_history(workdir)
    ]


def test_a_run_without_tolerance_stops_at_a_bad_record_and_names_it(shards, tmp_path):
    message = r"'pictures', .*00000-of-00001.*, record (3|11): 'rgb' has shape \(16, 16, 3\)"
    with pytest.raises(ValueError, match=message):
        run(config(shards, 0), tmp_path)


def test_bad_records_are_replaced_counted_and_listed_and_a_resumed_run_repeats_it(shards, tmp_path):
    def stop_at_three(state, step):
        if step == 3:
            raise interrupt.Interrupted("as if killed")
        return ()

    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    result = run(config(shards, 2), straight)
    with pytest.raises(interrupt.Interrupted):
        run(config(shards, 2, eval_every=3), resumed, evaluators=[stop_at_three])
    run(config(shards, 2, eval_every=3), resumed)

    assert result.metrics["left_out_records"] == 2  # 6 batches of 4 meet every record
    assert {entry["record"] for entry in listed(straight)} == set(BAD)
    assert listed(resumed) == listed(straight)
    assert timeless(resumed) == timeless(straight)


def test_a_run_stops_at_one_bad_record_too_many_and_goes_on_with_a_larger_number(shards, tmp_path):
    message = r"2 left-out records, allowed: 1 \(config.max_left_out_records\)"
    with pytest.raises(ValueError, match=message):
        run(config(shards, 1), tmp_path)
    assert len(listed(tmp_path)) == 2

    result = run(config(shards, 2), tmp_path)
    assert int(result.state.step) == 6
