"""What a trunk in training shows of its predictions."""

import jax
import numpy as np

from fourm_jax import loading
from fourm_jax.generate.generator import Generator
from fourm_jax.jobs import predictions
from fourm_jax.train import loop
from tests.generate import tiny
from tests.train import tiny as configs


def test_every_record_is_a_row_of_what_is_given_and_predicted():
    model, params = tiny.trunk()
    generator = Generator(model, params, {"depth": tiny.depth_tokenizer()})
    records = tiny.conditions(predictions.NUM_RECORDS)
    shown = dict(predictions._draw(generator, "rgb", ["depth"], records))
    picture = shown["predictions"]
    assert picture.dtype == np.uint8 and picture.shape[2] == 3
    assert shown["captions"].splitlines() == ["0. ", "1. ", "2. ", "3. "]  # no text was predicted


def test_without_tokenizers_there_is_nothing_to_draw(tmp_path):
    assert predictions.make_evaluators(configs.trunk(), tmp_path) == ()


def test_held_out_records_are_drawn_while_a_run_trains(tmp_path, monkeypatch):
    (tmp_path / "tokenizers").mkdir()
    monkeypatch.setattr(loading, "tokenizers_of", lambda *_: {"depth": None, "text": None})
    monkeypatch.setattr(predictions, "Generator", lambda *_: None)
    drawn = []

    def draw(generator, given, targets, records):
        drawn.append((given, targets, len(records[given]["pixels"])))
        yield "captions", "0. a red cone"

    monkeypatch.setattr(predictions, "_draw", draw)
    config = configs.trunk(num_steps=2)
    (evaluator,) = predictions.make_evaluators(config, tmp_path)
    one = jax.devices()[:1]
    loop.train(config, tmp_path, show_progress=False, evaluators=(evaluator,), devices=one)
    ((given, targets, count),) = drawn
    assert (given, sorted(targets)) == ("rgb", ["caption", "tok_depth"])
    assert count == predictions.NUM_RECORDS
