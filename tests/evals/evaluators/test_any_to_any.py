"""One modality from another: judged beside bound and constant, drawn best to worst."""

import dataclasses

import numpy as np
import pytest

from fourm_jax.evals import evaluator, measure
from fourm_jax.evals.evaluator import Context, Records
from fourm_jax.evals.evaluators import any_to_any
from fourm_jax.evals.measures import mse
from fourm_jax.generate.generator import Generator
from tests.generate import tiny

COUNT = 9


@pytest.fixture(scope="module")
def context():
    """The tiny trunk on records whose depth is what its tokenizer makes of true tokens."""
    model, params = tiny.trunk()
    named = tuple(
        spec.replace(source=spec.name) if spec.name in ("edge", "depth") else spec
        for spec in model.modalities
    )
    tokenizer = tiny.depth_tokenizer()
    generator = Generator(model.clone(modalities=named), params, {"depth": tokenizer})
    ids = np.random.default_rng(0).integers(0, 11, (COUNT, 9))
    tokens = {
        **tiny.conditions(COUNT, ("edge",)),
        "depth": {"ids": ids, "present": np.ones(COUNT, bool)},
    }
    fields = {
        "edge": tokens["edge"]["ids"].reshape(COUNT, 3, 3).astype(np.uint8),
        "depth": np.asarray(tokenizer.decode(ids.reshape(COUNT, 3, 3))),
    }
    records = Records(keys=list(map(str, range(COUNT))), tokens=tokens, fields=fields)
    return Context(generator=generator, datasets=(), read=lambda which, count: records)


def test_a_target_stands_between_its_bound_and_its_constant(context):
    made = evaluator.load("any_to_any", {"condition": "edge", "targets": "depth", "num_train": 9})
    made.check(context)
    found = made(context)
    entry = found.tasks["edge->depth"]
    assert entry["metric"] == "mse" and entry["n"] == COUNT
    assert entry["tokenizer_bound"] == 0 < entry["constant"]
    low, high = entry["interval"]
    assert low < entry["model"] < high
    (gallery,) = found.draw()
    labels = [label.partition(":")[0] for label, _ in gallery.rows]
    assert labels == ["best"] * 3 + ["median"] * 3 + ["worst"] * 3
    assert gallery.columns == ["", "edge (given)", "prediction", "tokenizer bound", "truth"]


def test_the_mean_of_samples_is_nearer_than_a_sample(context):
    options = {"condition": "edge", "targets": "depth", "temperature": 1.0, "num_train": 9}
    one = evaluator.load("any_to_any", options)(context).tasks["edge->depth"]
    many = evaluator.load("any_to_any", {**options, "num_samples": 4})(context).tasks["edge->depth"]
    assert many["model"] < one["model"]


def test_classes_are_compared_with_the_field_that_the_measure_is(context, monkeypatch):
    """`truth` names another field than that of the target."""
    records = context.read("test", 0)
    fields = records.fields | {"height": records.fields["depth"] * 0 + 7}
    other = dataclasses.replace(records, fields=fields)

    class PerClass(mse.MeanSquaredError):
        def per_class(self, predicted, truth):
            return [float(truth.max())]

    monkeypatch.setattr(measure, "load", lambda name, signal: PerClass())
    options = {"condition": "edge", "targets": "depth", "measures": "mse", "truth": "height"}
    found = evaluator.load("any_to_any", options)(
        dataclasses.replace(context, read=lambda which, count: other)
    )
    assert found.per_class == {"edge->depth: mse": {"0": 7}}


def test_records_with_several_captions_are_compared_in_the_form_of_what_is_generated(context):
    """As COCO's, and as folders of pictures that have a text file each."""
    records = context.read("test", 0)
    captions = [["a cone", "one cone"], [{"caption": "a box"}], *["a box"] * (COUNT - 2)]
    fields = records.fields | {"caption": captions}
    other = dataclasses.replace(records, fields=fields)
    data = dataclasses.replace(context, read=lambda which, count: other).held_out(COUNT)
    assert data.truth["caption"] == [["a cone", "one cone"], *["a box"] * (COUNT - 1)]
    assert data.truth["depth"] is fields["depth"]
    predicted = ["one cone", *["a box"] * (COUNT - 1)]
    judged = measure.judge(
        [measure.load("exact_match")],
        predicted,
        predicted,
        data.truth["caption"],
        train=data.train["caption"],
    )
    assert (judged["model"], judged["constant"]) == (1, pytest.approx((COUNT - 1) / COUNT))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"condition": "edges"}, "unknown condition 'edges'"),
        ({"condition": "edge", "targets": "depht"}, "unknown target 'depht'"),
        (
            {"condition": "edge", "targets": "depth", "measures": "mse", "truth": "height"},
            "unknown raw field 'height'",
        ),
    ],
)
def test_what_is_unknown_is_refused_before_any_pass(context, options, message):
    with pytest.raises(ValueError, match=message):
        evaluator.load("any_to_any", options).check(context)


def test_a_record_alone_is_judged_by_the_rarity_of_words_in_all_of_them():
    texts = ["a b c d", "e f g h"]
    found = any_to_any.per_record(measure.load("cider"), ["a b c d", "a b c d"], texts)
    assert found.tolist() == [pytest.approx(10), 0]
