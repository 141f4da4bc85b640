"""From configs to runs: every wrong key or value is named before anything starts."""

import math
import pickle
from unittest import mock

import jax
import numpy as np
import pytest

from fourm_jax.models import from_config
from fourm_jax.train import flops, run_config
from fourm_jax.utils import config as config_lib
from tests.train import tiny


def changed(config, change):
    config = config.unlock()
    change(config)
    return config


@pytest.mark.parametrize(
    ("make", "change", "message"),
    [
        (tiny.trunk, lambda c: c.update(tsak="fourm"), "'tsak'; did you mean 'task'"),
        (tiny.trunk, lambda c: c.model.update(dimm=3), "'model.dimm'; did you mean 'model.dim'"),
        (tiny.trunk, lambda c: c.optimizer.update(rl=3), "key 'optimizer.rl'"),
        (tiny.trunk, lambda c: c.mesh.update(sequence=2), "key 'mesh.sequence'"),
        (tiny.trunk, lambda c: c.masking.update(loss_name="mod"), "key 'masking.loss_name'"),
        (tiny.trunk, lambda c: c.data[0].update(wieght=2), "did you mean 'data\\[0\\].weight'"),
        (tiny.trunk, lambda c: c.update(dtype="float16"), "unknown dtype 'float16'"),
        (tiny.trunk, lambda c: c.update(loss="sum"), "unknown loss 'sum'"),
        (tiny.trunk, lambda c: c.update(seed=-1), "'seed' is -1, must be at least 0"),
        (tiny.trunk, lambda c: c.update(seed=2**70), r"seed \d+, allowed: 0 to 2\*\*63 - 1"),
        (tiny.trunk, lambda c: c.optimizer.update(lr=math.nan), "'optimizer.lr' is nan"),
        (tiny.trunk, lambda c: c.data[0].update(weight=math.inf), "'data.0.weight' is inf"),
        (tiny.trunk, lambda c: c.update(batch_size=0), "'batch_size' is 0, must be at least 1"),
        (tiny.trunk, lambda c: c.update(task="forum"), "unknown task 'forum'; did you mean"),
        (tiny.tokenizer, lambda c: c.update(evals={"knn": {}}), "evals .'knn'. are for trunks"),
        (tiny.trunk, lambda c: c.masking.update(maskings_per_record=3), "8 is not divisible by"),
        (tiny.trunk, lambda c: c.masking.update(maskings_per_record=0), "must be at least 1"),
        (
            tiny.trunk,
            lambda c: c.masking.update(num_inputs=10**5),
            "num_inputs 100000: a record has",
        ),
        (tiny.trunk, lambda c: c.masking.update(budget="al"), "unknown masking.budget 'al'"),
        (tiny.trunk, lambda c: c.model.update(num_heads=0), "num_heads 0, must be at least 1"),
        (tiny.trunk, lambda c: c.optimizer.update(warmup_steps=99), "99 .* do not fit into num_st"),
        (tiny.trunk, lambda c: c.modalities.update(inputs=("rbg",)), "did you mean 'rgb'"),
        (tiny.tokenizer, lambda c: c.update(loss="mod"), "unknown config key 'loss'"),
        (tiny.tokenizer, lambda c: c.tokenizer.update(family="vq"), "unknown tokenizer family"),
        (
            tiny.tokenizer,
            lambda c: c.tokenizer.arguments.encoder.update(dimm=3),
            r"config\.tokenizer: .* unexpected keyword argument 'dimm'",
        ),
        (
            tiny.tokenizer,
            lambda c: c.tokenizer.arguments.update(quantizer={"decay": 2.0}),
            r"config\.tokenizer: quantizer decay 2\.0, allowed: 0\.\.1",
        ),
        (
            tiny.tokenizer,
            lambda c: c.tokenizer.arguments.signal.update(high=2**31),
            r"config\.tokenizer: arguments: high is 2147483648, allowed",  # no card could say it
        ),
    ],
)
def test_a_wrong_config_is_refused_by_name(make, change, message):
    with pytest.raises(ValueError, match=message):
        run_config.build(changed(make(), change))


def test_a_missing_key_is_named():
    config = tiny.trunk().unlock()
    del config.masking
    with pytest.raises(ValueError, match=r"lacks the keys \['masking'\]"):
        run_config.build(config)


def test_a_model_of_fewer_modalities_takes_the_mixture_of_its_data_set():
    config = tiny.trunk(modalities__inputs=("rgb",), modalities__outputs=("tok_depth",))
    assert run_config.make_mixture(config).input_alphas.tolist() == [[[1.0, 1.0]]]


def test_records_are_loaded_once_for_all_their_maskings():
    run = run_config.build(tiny.trunk(masking__maskings_per_record=4))
    assert len(next(run.batches(0))["mixture"]) == 2


def test_batches_are_a_function_of_their_number():
    run = run_config.build(tiny.tokenizer())
    stream = run.batches(0)
    _, second = next(stream), next(stream)
    np.testing.assert_array_equal(second["rgb"], next(run.batches(1))["rgb"])


def test_a_shipped_override_reaches_the_model():
    config = config_lib.override(tiny.trunk(), {"model.dim": 32})
    assert from_config.make_model(config).dim == 32


@pytest.mark.parametrize(
    ("kind", "peak"),
    [("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA H100 PCIe", 756e12), ("cpu", None)],
)
def test_a_card_is_known_by_the_longest_name_that_it_begins_with(kind, peak):
    assert flops.peak_flops(mock.Mock(spec=jax.Device, device_kind=kind)) == peak


def test_operations_of_one_block_by_hand():
    model = from_config.make_model(tiny.trunk(modalities__outputs=("tok_depth",)))
    n, m, d, h, v = 16, 12, 16, 32, 256
    encoder = n * (4 * d * d + 3 * d * h) + 2 * n * n * d
    decoder = m * (4 * d * d + 3 * d * h) + 2 * m * m * d
    decoder += 2 * m * d * d + 2 * n * d * d + 2 * m * n * d
    assert flops.training_flops(model, n, m) == 6 * (encoder + decoder + n * d * d + m * d * v)


def test_the_config_says_how_many_threads_of_how_many_processes_read(monkeypatch):
    asked = []

    def make_batches(datasets, specs, **reading):
        asked.append(reading)
        yield from ()

    monkeypatch.setattr(run_config.pipeline, "make_batches", make_batches)
    config = tiny.trunk()
    list(run_config.build(config).batches(0))
    assert not asked[0].keys() & {"num_threads", "num_workers"}  # a config of before
    with config.unlocked():
        config.num_threads, config.num_workers = 2, 3
    list(run_config.build(config).batches(0))
    assert (asked[1]["num_threads"], asked[1]["num_workers"]) == (2, 3)
    list(run_config.build(config).batches(0, ahead=False))
    assert (asked[2]["num_threads"], asked[2]["num_workers"]) == (0, 0)
    with config.unlocked():
        config.num_workers = -1
    with pytest.raises(ValueError, match="'num_workers' is -1"):
        run_config.build(config)


def tokenizer_of(signal):
    whole = config_lib.to_json(tiny.tokenizer())
    whole["tokenizer"]["arguments"]["signal"] = signal
    return config_lib.from_json(whole)


def test_a_tokenizer_learns_from_pictures_of_normals_what_it_will_encode():
    normals = {"num_channels": 3, "low": -1.0, "high": 1.0, "unit": True}
    run = run_config.build(tokenizer_of(normals))
    batch = next(run.batches(0))["rgb"]  # random pixels, as normals are stored
    assert batch.dtype == np.float32
    assert -1 <= batch.min() < -0.9 < 0.9 < batch.max() <= 1
    take = pickle.loads(pickle.dumps(run.task.taken))  # as worker processes get it
    np.testing.assert_allclose(take(np.full((8, 8, 3), 51, np.uint8)), -0.6, atol=1e-6)


def test_a_tokenizer_learns_from_no_value_that_it_would_refuse():
    metres = {"num_channels": 3, "low": 0.0, "high": 10.0}
    with pytest.raises(ValueError, match=r"data set 'fake', record \d+: 'rgb': .* got dtype uint8"):
        next(run_config.build(tokenizer_of(metres)).batches(0))
