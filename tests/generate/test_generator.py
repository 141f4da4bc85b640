"""The short way from raw conditions to raw results, and what it refuses."""

import dataclasses
import types

import numpy as np
import pytest

from fourm_jax.generate import conditions as condition_entries
from fourm_jax.generate import job, results, trunk
from fourm_jax.generate.generator import Generator
from fourm_jax.generate.grids import Sampling
from fourm_jax.generate.schedule import Target
from fourm_jax.tokenizers.signal import Signal
from fourm_jax.tokenizers.text import TextTokenizer
from tests.generate import tiny

GRID = next(spec.grid for spec in tiny.SPECS if spec.name == "depth")


class FakeTokenizer:
    """Stands for a trained one: id = mean brightness of a cell, and back."""

    card = types.SimpleNamespace(name="depth", vocab_size=11, codes_per_position=1, grid=GRID)
    signal = Signal(axes="hw")

    def encode(self, raw):
        return np.round(raw).astype(np.int32)

    def decode(self, ids):
        return ids.astype(np.float32)

    def decode_probabilities(self, probabilities):
        return (probabilities * np.arange(probabilities.shape[-1])).sum(-1)


@pytest.fixture(scope="module")
def text():
    return TextTokenizer.train(
        ["a red cone", "a blue cube"], vocab_size=230, num_sentinels=10, num_bins=2
    )


@pytest.fixture(scope="module")
def generator(text):
    return Generator(*tiny.trunk(), {"depth": FakeTokenizer(), "text": text})


def rgb(num_rows=3):
    return tiny.conditions(num_rows, ("rgb",))["rgb"]["pixels"]


def test_targets_come_back_decoded_in_order_and_alike_in_every_batch_size(generator):
    targets = ["caption", "depth"]
    whole = generator.generate({"rgb": rgb()}, targets, num_steps=2)
    parts = generator.generate({"rgb": rgb()}, targets, num_steps=2, batch_size=2)
    assert list(whole.ids) == ["depth", "caption"]
    for name, ids in whole.ids.items():
        np.testing.assert_array_equal(ids, parts.ids[name])
    assert whole.decoded["depth"].raw.shape == (3, 3, 3)
    assert len(whole.decoded["caption"].raw) == len(whole.decoded["caption"].texts) == 3


def test_raw_conditions_and_texts_are_encoded(generator, text):
    depth = np.arange(9, dtype=np.float32).reshape(1, 3, 3)
    state = generator.start({"depth": depth, "caption": ["a red cone"]}, ["edge"])
    assert state.ids["depth"].tolist() == [list(range(9))]
    length = int(state.known["caption"].sum())
    assert (
        state.ids["caption"][0, :length].tolist()
        == text.encode_sequence("a red cone", max_tokens=99)[0].tolist()
    )


def test_a_prompt_with_a_sentinel_is_completed_around_what_is_given(generator, text):
    prompt = "a red [S_1]"
    done = generator.generate({"rgb": rgb(1), "caption": [prompt]}, ["caption"])
    given = text.encode("a red").tolist()
    assert done.ids["caption"][0, : len(given)].tolist() == given
    assert done.decoded["caption"].texts[0].startswith("a red")


def test_a_plan_of_ones_own_is_followed(generator):
    plan = [Target(name="edge", scheme="maskgit", num_tokens=9, num_steps=1, temperature=0.0)]
    done = generator.generate({"rgb": rgb(1)}, ["edge"], plan=plan, sampling=Sampling())
    assert done.decoded == {}  # this modality has no tokenizer here
    best = generator.predict({"rgb": rgb(1)}, ["edge"])["edge"].argmax(axis=-1)
    np.testing.assert_array_equal(done.ids["edge"], best)


def test_samples_of_a_row_follow_each_other_and_the_first_is_that_of_a_single_one(generator):
    warm = {"num_steps": 2, "temperature": 1.0}
    single = generator.generate({"rgb": rgb(2)}, ["depth"], **warm)
    several = generator.generate({"rgb": rgb(2)}, ["depth"], num_samples=3, **warm)
    assert several.ids["depth"].shape == (6, 9)
    np.testing.assert_array_equal(several.ids["depth"][::3], single.ids["depth"])
    assert (several.ids["depth"][0] != several.ids["depth"][1]).any()
    parts = generator.generate({"rgb": rgb(2)}, ["depth"], num_samples=3, batch_size=4, **warm)
    np.testing.assert_array_equal(several.ids["depth"], parts.ids["depth"])


def test_an_ensemble_is_the_mean_of_its_samples(generator):
    several = generator.generate({"rgb": rgb(2)}, ["depth"], num_steps=2, num_samples=3)
    mean = generator.ensemble({"rgb": rgb(2)}, "depth", num_steps=2, num_samples=3)
    expected = several.decoded["depth"].raw.reshape(2, 3, 3, 3).mean(axis=1)
    np.testing.assert_allclose(mean, expected, rtol=1e-6)


def test_the_mean_of_directions_is_a_direction():
    raw = np.array([[[[1.0, 0, 0]]], [[[0, 1.0, 0]]]], np.float32)
    signal = Signal(axes="hwc", num_channels=3, unit=True)
    mean = results.combine(raw, 2, signal)
    np.testing.assert_allclose(mean, [[[[0.5**0.5, 0.5**0.5, 0]]]], rtol=1e-6)


def test_a_seed_may_be_an_integer_of_numpy():
    one, other = (job.keys_of(seed, 2, 1) for seed in (7, np.uint32(7)))
    assert (one == other).all()


def test_a_continuous_map_of_one_pass_is_the_average_of_its_codes(generator):
    made = generator.generate({"rgb": rgb(2)}, ["depth"])
    probabilities = generator.predict({"rgb": rgb(2)}, ["depth"])["depth"]
    np.testing.assert_array_equal(made.ids["depth"], probabilities.argmax(-1))
    average = (probabilities * np.arange(11)).sum(-1).reshape(2, 3, 3)
    np.testing.assert_allclose(made.decoded["depth"].raw, average, rtol=1e-5)


def test_a_sequence_is_not_predicted_in_one_pass(generator):
    with pytest.raises(ValueError, match="'caption' is a sequence, allowed: grid and global"):
        generator.predict({"rgb": rgb(1)}, ["depth", "caption"])


@pytest.mark.parametrize(
    ("conditions", "targets", "message"),
    [
        ({"rgbb": 0}, ["depth"], "unknown condition 'rgbb'; did you mean 'rgb'"),
        ({"rgb": rgb()}, ["depht"], "unknown target 'depht'; did you mean 'depth'"),
        ({"rgb": rgb()}, ["rgb"], "unknown target 'rgb'.*Allowed"),
        ({"rgb": rgb()}, ["depth", "depth"], "target 'depth' is given twice"),
        ({"rgb": rgb()}, [], "no target to generate, allowed: "),
        ({"rgb": rgb()}, "depth", r"targets 'depth', allowed: a list of names, \['depth'\]"),
        ({"rgb": np.zeros((1, 4, 6, 2), np.uint8)}, ["depth"], r"rgb: array uint8 \[4, 6, 2\]"),
        ({"edge": np.full((1, 9), 7)}, ["depth"], r"'edge': id 7, allowed: 0\.\.6"),
        ({"edge": np.zeros((1, 3, 3))}, ["depth"], "'edge'.*are no ids.*has no tokenizer"),
        ({"caption": "a red cone " * 3}, ["depth"], "'caption': .* tokens, allowed: 8 with"),
        ({"caption": []}, ["depth"], "'caption': no rows, allowed: at least one"),
        ({"rgb": rgb(2), "caption": ["a"]}, ["depth"], "same number of rows"),
    ],
)
def test_a_request_that_cannot_work_is_refused_before_any_step(
    generator, conditions, targets, message
):
    with pytest.raises(ValueError, match=message):
        generator.generate(conditions, targets)


def test_a_text_without_text_tokenizer_is_refused():
    with pytest.raises(ValueError, match="'caption': the condition is a text and tokenizer 'text'"):
        condition_entries.encode(tiny.SPECS[4], ["a cone"], {})


def test_a_tokenizer_of_another_kind_than_the_modality_is_refused(text):
    with pytest.raises(ValueError, match="'text' is a FakeTokenizer: not for sequence 'caption'"):
        Generator(*tiny.trunk(), {"text": FakeTokenizer()})
    with pytest.raises(ValueError, match="'depth' is a TextTokenizer: not for grid 'depth'"):
        Generator(*tiny.trunk(), {"depth": text})


def test_a_missing_tokenizer_is_named_when_it_is_needed(generator):
    with pytest.raises(ValueError, match=r"'edge': no tokenizer '' .* among \['depth', 'text'\]"):
        generator.tokenizer("edge")


def test_a_tokenizer_of_another_vocabulary_is_refused():
    other = FakeTokenizer()
    other.card = types.SimpleNamespace(name="depth", vocab_size=64, codes_per_position=1, grid=GRID)
    with pytest.raises(
        ValueError, match=r"'depth' makes .* tokens of 64 ids, modality 'depth' has"
    ):
        Generator(*tiny.trunk(), {"depth": other})


def test_on_a_tpu_blocks_that_nobody_asked_to_unroll_are_in_a_loop():
    model, _ = tiny.trunk()
    for platform, asked, expected in (("tpu", 0, 1), ("tpu", 3, 3), ("gpu", 0, 0), ("cpu", 0, 0)):
        one = dataclasses.replace(model, scan_unroll=asked)
        assert trunk.looped_on_tpu(one, platform).scan_unroll == expected
