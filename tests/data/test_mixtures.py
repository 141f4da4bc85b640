"""The published mixture of 4M-21: pictures with 20 modalities beside text alone, in one batch."""

import itertools

import absl.flags
import jax
import numpy as np
import pytest

from configs import fourm
from fourm_jax.data import datasets as sources
from fourm_jax.data import pipeline
from fourm_jax.modalities import registry
from fourm_jax.models import from_config
from fourm_jax.train import run_config

TEXT_ONLY = 2  # index of c4
BATCH = 20


@pytest.fixture(scope="module")
def config():
    return fourm.get_config("mix=mod21,runlocal")


@pytest.fixture(scope="module")
def datasets(config):
    return run_config.make_datasets(config, "train")


@pytest.fixture(scope="module")
def specs(config):
    return from_config.resolve_specs(config)


def first(datasets, specs, count, **options):
    batches = pipeline.make_batches(datasets, specs, batch_size=BATCH, seed=0, **options)
    return list(itertools.islice(batches, count))


@pytest.fixture(scope="module")
def batches(datasets, specs):
    return first(datasets, specs, 5)


def assert_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_data_sets_have_the_published_shares(datasets, batches):
    mixture = np.concatenate([batch["mixture"] for batch in batches])

    assert [dataset.name for dataset in datasets] == ["cc12m", "coyo700m", "c4"]
    np.testing.assert_array_equal(np.bincount(mixture), [60, 20, 20])


def test_a_sample_of_text_has_a_caption_and_nothing_else(batches, specs):
    for batch in batches:
        text = batch["mixture"] == TEXT_ONLY
        for spec in specs:
            entry = batch[spec.name]
            there = entry["length"] > 0 if "length" in entry else entry["present"]
            np.testing.assert_array_equal(there, ~text | (spec.name == "caption"))


def test_text_alone_is_masked_to_text_alone(config, batches, specs):
    names = [spec.name for spec in specs]
    run = run_config.build(config)
    tokens = jax.jit(run.task.sample)(jax.random.key(0), batches[0])
    text = batches[0]["mixture"] == TEXT_ONLY

    for part in jax.device_get((tokens.inputs, tokens.targets)):
        rows = zip(part.modality, part.valid, strict=True)
        seen = [set(row[valid].tolist()) for row, valid in rows]
        caption = {names.index("caption")}
        assert all(found <= caption for found in itertools.compress(seen, text))
        assert set().union(*itertools.compress(seen, ~text)) > caption
    assert np.asarray(tokens.targets.valid)[text].any(1).all()


@pytest.mark.parametrize("count", [2, 4])
def test_any_number_of_processes_reads_the_same_global_batches(datasets, specs, batches, count):
    parts = [
        first(datasets, specs, 2, process_index=index, process_count=count)
        for index in range(count)
    ]

    for whole, *blocks in zip(batches[:2], *parts, strict=True):
        assert_equal(whole, jax.tree.map(lambda *xs: np.concatenate(xs), *blocks))


def test_a_restart_and_worker_processes_read_the_same_batches(datasets, specs, batches):
    absl.flags.FLAGS.mark_as_parsed()  # grain's workers read absl flags

    assert_equal(batches[3:], first(datasets, specs, 2, start=3))
    assert_equal(batches[3:], first(datasets, specs, 2, start=3, num_workers=2))


def test_a_run_without_pixels_never_touches_a_picture(datasets, specs):
    class Watched(dict):
        def get(self, name, default=None):
            assert name != "rgb@224", "looked at a picture"
            return super().get(name, default)

    records = [Watched(datasets[0].source[index]) for index in range(4)]
    pictures = sources.Dataset(name="pictures", source=records, fields=datasets[0].fields)
    blind = [spec for spec in specs if spec.name != "rgb@224"]

    assert len(first([pictures], blind, 1)) == 1
    with pytest.raises(AssertionError, match="looked at a picture"):
        first([pictures], specs, 1)


@pytest.mark.parametrize(
    ("arg", "lr", "clip_norm", "remat", "dim", "tokens"),
    [
        ("mix=mod7,size=base", 3.2e-3, 0.0, "names", 768, 128),
        ("mix=mod7,size=xlarge", 6.4e-4, 3.0, "full", 2048, 128),
        ("mix=mod21,size=large", 1.6e-3, 0.0, "names", 1024, 256),
        ("mix=mod21,size=xlarge", 3.2e-4, 3.0, "full", 2048, 256),
    ],
)
def test_the_published_recipes(arg, lr, clip_norm, remat, dim, tokens):
    config = fourm.get_config(arg)
    run_config.check(config)

    assert (config.optimizer.lr, config.optimizer.clip_norm) == (lr, clip_norm)
    assert (config.model.remat, from_config.make_model(config).dim) == (remat, dim)
    assert config.masking.num_inputs == config.masking.num_targets == tokens
    # 500 billion tokens, 10 billion of them to warm up
    seen = config.num_steps * config.batch_size * 2 * tokens
    assert seen == pytest.approx(5.0e11, rel=0.01)
    warm_up = config.optimizer.warmup_steps * config.batch_size * 2 * tokens
    assert warm_up == pytest.approx(1.0e10, rel=0.001)
    assert sum(part.weight for part in config.data) == pytest.approx(1.0)


def test_a_wrong_mix_or_size_names_the_allowed_ones():
    with pytest.raises(ValueError, match="mix 'mod22'; did you mean 'mod21'"):
        fourm.get_config("mix=mod22")
    with pytest.raises(ValueError, match="size 'larg'; did you mean 'large'"):
        fourm.get_config("size=larg")


def test_the_modalities_of_each_published_model():
    assert from_config.resolve_specs(fourm.get_config("mix=mod7")) == registry.resolve(
        "fourm", registry.MOD7_IN
    )
    assert len(from_config.resolve_specs(fourm.get_config("mix=mod21"))) == 19
