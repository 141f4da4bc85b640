"""Average precision agrees with pycocotools, and by hand."""

import contextlib
import io

import numpy as np
import pytest

from fourm_jax.evals import measure

SIZE = 40
IDS = {"a": 1, "b": 2}


def boxes(rng, count):
    low = rng.integers(0, 18, (count, 2))
    return np.concatenate([low, low + rng.integers(4, 14, (count, 2))], axis=1).astype(np.float64)


def masks(corners):
    drawn = np.zeros((len(corners), SIZE, SIZE), bool)
    for mask, (x0, y0, x1, y1) in zip(drawn, corners.astype(int), strict=True):
        mask[y0:y1, x0:x1] = True
    return drawn


def pictures(seed):
    """Predictions and truth of six pictures, some of them without objects."""
    rng = np.random.default_rng(seed)
    truth, predicted = [], []
    for _ in range(6):
        real, count = boxes(rng, rng.integers(0, 5)), rng.integers(0, 7)
        moved = np.maximum(real[:count] + rng.integers(-2, 3, real[:count].shape), 0)
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
        found = np.concatenate([moved, boxes(rng, max(count - len(real), 0))])
        classes = rng.choice(["a", "b"], len(real)).tolist()
        own = (classes + ["a"] * 7)[: len(found)]
        truth.append({"boxes": real, "masks": masks(real), "classes": classes})
        scores = rng.permutation(1000)[: len(found)] / 1000
        predicted.append({"boxes": found, "masks": masks(found), "classes": own, "scores": scores})
    return predicted, truth


def judged(predicted, truth, kind):
    """(AP, AP50) of pycocotools."""
    coco = pytest.importorskip("pycocotools.coco", reason="no pycocotools")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    encode = pytest.importorskip("pycocotools.mask").encode

    def rows(values, first):
        found = []
        for number, value in enumerate(values, 1):
            for place, name in enumerate(value["classes"]):
                x0, y0, x1, y1 = value["boxes"][place]
                drawn = np.asfortranarray(value["masks"][place].astype(np.uint8))
                found.append(
                    {
                        "id": first + len(found),
                        "image_id": number,
                        "category_id": IDS[name],
                        "iscrowd": 0,
                        "area": float(value["masks"][place].sum()),
                        "bbox": [x0, y0, x1 - x0, y1 - y0],
                        "segmentation": encode(drawn),
                        **({"score": float(value["scores"][place])} if "scores" in value else {}),
                    }
                )
        return found

    with contextlib.redirect_stdout(io.StringIO()):
        known = coco.COCO()
        known.dataset = {
            "images": [{"id": n, "height": SIZE, "width": SIZE} for n in range(1, 1 + len(truth))],
            "annotations": rows(truth, 1),
            "categories": [{"id": number, "name": name} for name, number in IDS.items()],
        }
        known.createIndex()
        results = rows(predicted, 1)
        if kind == "segm":
            results = [{k: v for k, v in one.items() if k != "bbox"} for one in results]
        evaluation = cocoeval.COCOeval(known, known.loadRes(results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[:2]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("name", "kind"), [("box_ap", "bbox"), ("mask_ap", "segm")])
def test_average_precision_is_that_of_pycocotools(name, kind, seed):
    predicted, truth = pictures(seed)
    over_all, at_half = judged(predicted, truth, kind)
    assert measure.load(name).score(predicted, truth) == pytest.approx(over_all, abs=1e-6)
    half = measure.load(f"{name}:threshold=0.5")
    assert half.score(predicted, truth) == pytest.approx(at_half, abs=1e-6)


def test_one_right_box_of_two_by_hand():
    truth = [{"boxes": [[0, 0, 1, 1], [2, 2, 3, 3]], "classes": ["a", "a"]}]
    found = [{"boxes": [[0, 0, 1, 1]], "classes": ["a"]}]
    # precision 1 up to recall 0.5: 51 of 101 recalls
    assert measure.load("box_ap").score(found, truth) == pytest.approx(51 / 101)
    wrong_first = [{"boxes": [[5, 5, 6, 6], [0, 0, 1, 1]], "classes": ["a", "a"]}]
    assert measure.load("box_ap").score(wrong_first, truth) == pytest.approx(0.5 * 51 / 101)


def test_nothing_to_find_is_no_number_and_nothing_found_is_zero():
    none = [{"boxes": [], "classes": []}]
    one = [{"boxes": [[0, 0, 1, 1]], "classes": ["a"]}]
    assert np.isnan(measure.load("box_ap").score(one, none))
    assert measure.load("box_ap").score(none, one) == 0.0
    with pytest.raises(ValueError, match="1 predictions for 2 pictures"):
        measure.load("box_ap").score(one, [*one, *one])


def test_the_usual_mask_is_that_of_the_most_frequent_class():
    row = np.array([[True, True, False]])
    values = [
        {"masks": [row, row], "classes": ["b", "a"]},
        {"masks": [np.array([[True, False, False]])], "classes": ["a"]},
    ]
    usual = measure.load("mask_ap").constant(values)
    assert usual["classes"] == ["a"] and usual["masks"].tolist() == [[[True, True, False]]]


def test_of_records_without_masks_the_usual_answer_is_none():
    mask_ap = measure.load("mask_ap")
    usual = mask_ap.constant([{"masks": np.zeros((0, 2, 2), bool), "classes": []}])
    one = {"masks": np.ones((1, 2, 2), bool), "classes": ["a"]}
    assert mask_ap.score([usual], [one]) == 0


@pytest.mark.parametrize("name", ["box_ap", "mask_ap"])
def test_an_overlap_at_which_nothing_is_matched_is_refused(name):
    assert measure.load(f"{name}:threshold=0.55").metric == f"{name}0.55"
    with pytest.raises(ValueError, match=r"threshold 0.3 .*allowed: 0, 0.5, 0.55, "):
        measure.load(f"{name}:threshold=0.3")
