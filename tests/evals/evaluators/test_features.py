"""Evaluators of frozen features, on records whose features are known."""

import numpy as np
import pytest

from fourm_jax.evals import evaluator
from fourm_jax.evals.evaluator import Context, Findings, Records
from fourm_jax.evals.evaluators import any_to_any
from fourm_jax.generate.job import Parts
from fourm_jax.modalities.vocabulary import PUBLISHED
from tests.generate import tiny


class Known:
    """A generator whose features are the tokens themselves."""

    def __init__(self):
        self.model, _ = tiny.trunk()
        self.parts = Parts(model=self.model, tokenizers={}, vocabulary=PUBLISHED)

    def features(self, conditions, kind, **options):
        del kind, options
        (entry,) = conditions.values()
        return entry["ids"]


def records(vectors, labels):
    vectors = np.asarray(vectors, np.float32)
    return Records(
        keys=[str(number) for number in range(len(vectors))],
        tokens={"rgb": {"ids": vectors}, "caption": {"ids": vectors[::-1]}},
        fields={"label": list(labels), "det": [{"classes": [label]} for label in labels]},
    )


TRAIN = records([[1, 0], [1, 0.1], [0, 1], [0.1, 1]], ["cat", "cat", "dog", "dog"])
TEST = records([[1, 0.2], [0.2, 1], [1, 0.3]], ["cat", "dog", "dog"])


def evaluate(name, options, test=TEST):
    made = object.__new__(Context)  # the generator here is no trunk
    for field, value in {
        "generator": Known(),
        "datasets": (),
        "read": lambda which, count: TRAIN if which == "train" else test,
        "num_records": 0,
        "masking": None,
        "show_progress": False,
    }.items():
        object.__setattr__(made, field, value)
    evaluates = evaluator.load(name, options)
    evaluates.check(made)
    return evaluates(made)


@pytest.mark.parametrize(
    ("name", "options"), [("knn", {"k": "2"}), ("linear_probe", {})], ids=["knn", "linear_probe"]
)
def test_two_of_three_records_lie_with_their_class(name, options):
    found = evaluate(name, {"label": "det.classes.0", **options})
    entry = found.tasks["rgb->det.classes.0"]
    assert entry["model"] == pytest.approx(2 / 3) and entry["n"] == 3
    assert entry["constant"] == pytest.approx(1 / 3)  # of equal ones the first: cat
    low, high = entry["interval"]
    assert low <= 2 / 3 <= high


def test_the_share_of_each_class_is_shown():
    found = evaluate("knn", {"label": "label", "k": 2})
    assert found.per_class["rgb->label: share right"] == {"cat": 1.0, "dog": 0.5}


def test_retrieval_goes_both_ways():
    found = dict(
        evaluate("retrieval", {"first": "caption", "second": "rgb", "features": "encoder"}).values()
    )
    # reversed: the middle record finds itself, the others do not
    assert found["caption=>rgb/r@1"] == found["rgb=>caption/r@1"] == pytest.approx(1 / 3)
    assert found["caption=>rgb/r@5"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "kind"}, "unknown raw field with labels 'kind'"),
        ({"label": "det.classes.1"}, r"record 0: no label 'det.classes.1' in its det"),
        ({"label": "label", "k": 9}, r"k 9, allowed: 1\.\.4, the number of training records"),
        ({"label": "label", "k": "two"}, "option k=two, expected int"),
        ({"label": "label", "k": 2.5}, "option k=2.5, expected a whole number"),
        ({"label": "label", "k": None}, "option k=None, expected int"),
        ({"label": "label", "condition": 5}, "option condition=5, expected tuple"),
        ({"label": "label", "condition": "rbg"}, "unknown condition 'rbg'"),
        ({"label": "label", "features": "enc"}, "unknown features 'enc'"),
    ],
)
def test_what_cannot_be_judged_is_one_line(options, message):
    with pytest.raises(ValueError, match=message):
        evaluate("knn", options)


def test_a_label_outside_the_classes_is_named():
    strange = records([[1, 0]], ["horse"])
    with pytest.raises(ValueError, match="unknown class among the held-out labels 'horse'"):
        evaluate("knn", {"label": "label", "k": 2}, strange)


def test_an_entry_of_a_config_may_have_any_name():
    made = evaluator.load("near", {"type": "knn", "every": 10, "label": "label"})
    assert isinstance(made, evaluator.Evaluator)
    with pytest.raises(ValueError, match="unknown evaluator 'near'"):
        evaluator.load("near", {})


def test_best_median_and_worst_records():
    scores = np.array([5.0, np.nan, 1, 2, 3, 4, 6, 7, 8, 9])
    labels = any_to_any.ranked(scores, higher_is_better=True)
    assert [number for label, number in labels if label == "best"] == [9, 8, 7]
    assert [number for label, number in labels if label == "median"] == [6, 0, 5]
    assert [number for label, number in labels if label == "worst"] == [4, 3, 2]


def test_values_have_the_names_of_their_task_and_metric():
    entry = evaluator.entry("mae", 1.0, 3, higher_is_better=False)
    other = evaluator.entry("mse", 2.0, 3, higher_is_better=False)
    found = Findings(tasks={"rgb->tok_depth": {**entry, "also": [other]}})
    assert dict(found.values()) == {"rgb->tok_depth/mae": 1.0, "rgb->tok_depth/mse": 2.0}
