"""Scores of captions, votes of neighbours, retrieval and bootstrap intervals, by hand."""

import math

import numpy as np
import pytest

from fourm_jax.evals import bootstrap, measure, search
from fourm_jax.evals.measures import neighbours


def test_bleu_of_the_same_text_is_one_and_without_a_common_4_gram_zero():
    bleu = measure.load("bleu")
    assert bleu.score(["A red cone, on it."], ["a red cone on it"]) == pytest.approx(1)
    assert bleu.score(["a red cone"], ["a blue box"]) == 0


def test_bleu_by_hand():
    # of "a b c d e": 4/5, 3/4, 2/3, 1/2; as long as the reference
    expected = (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25
    assert measure.load("bleu").score(["a b c d e"], ["a b c d x"]) == pytest.approx(expected)
    shorter = math.exp(1 - 5 / 4)
    assert measure.load("bleu").score(["a b c d"], ["a b c d e"]) == pytest.approx(shorter)


def test_bleu_takes_the_best_of_several_references():
    assert measure.load("bleu").score(["a b c d"], [["x", "a b c d"]]) == pytest.approx(1)


def test_a_text_is_right_where_it_is_one_of_several_references():
    exact = measure.load("exact_match")
    assert exact.score(["a cone", "a box"], [["one cone", "a cone"], ["one box"]]) == 0.5


def test_case_and_punctuation_which_tokenizers_change_make_no_text_wrong():
    exact = measure.load("exact_match")
    assert exact.score(["a red cone .", "a red cone"], ["A red cone.", "A red cones."]) == 0.5


@pytest.mark.parametrize("name", ["bleu", "cider", "exact_match"])
def test_the_constant_text_is_the_most_frequent_one_of_all_references(name):
    truth = [["a cone", "one cone"], ["a box", "one cone"], "a box", "one cone"]
    assert measure.load(name).constant(truth) == "one cone"


def test_cider_by_hand():
    cider = measure.load("cider")
    texts = ["a b c d", "e f g h"]
    assert cider.score(texts, texts) == pytest.approx(10)
    assert cider.score(texts[::-1], texts) == 0
    # words that every caption has weigh nothing
    assert cider.score(["a", "a"], ["a", "a"]) == 0


def test_cider_punishes_another_length():
    truth = ["a b c d", "e f g h"]
    longer = measure.load("cider").parts(["a b c d a", "e f g h"], truth)
    assert longer[1] == pytest.approx(10) and 0 < longer[0] < 10


def test_neighbours_vote_with_their_cosines():
    train = np.array([[1.0, 0], [0, 1], [0, 1]])
    votes = neighbours.knn(train, np.array([0, 1, 1]), np.array([[1.0, 0]]), k=3, temperature=1.0)
    # weights e^1, e^0, e^0, up to a factor
    assert votes[0, 0] / votes[0, 1] == pytest.approx(math.e / 2)
    assert neighbours.top(votes, np.array([0]), 1).tolist() == [True]
    with pytest.raises(ValueError, match=r"k 4, allowed: 1\.\.3"):
        neighbours.knn(train, np.array([0, 1, 1]), train, k=4)


def test_recall_counts_ties_against_the_model():
    index = np.array([[1.0, 0], [0, 1], [1, 1]])
    ranks = neighbours.ranks(np.array([[1.0, 0], [1, 0], [1, 1]]), index)
    assert ranks.tolist() == [0, 2, 0]
    assert neighbours.recall(ranks, 1) == pytest.approx(2 / 3)
    same = neighbours.ranks(np.ones((3, 2)), np.ones((3, 2)))
    assert neighbours.recall(same, 1) == 0


def test_features_that_are_no_numbers_find_nothing():
    index = np.array([[1.0, 0], [0, 1], [1, 1]])
    ranks = neighbours.ranks(np.array([[1.0, 0], [np.nan, 1], [1, 1]]), index)
    assert ranks.tolist() == [0, 2, 0]


@pytest.mark.parametrize("backend", search.BACKENDS)
def test_the_nearest_rows_come_first_whatever_multiplies(backend):
    index = np.array([[0.0, 1], [1, 0], [1, 1]], np.float32)
    hits = search.nearest(np.array([[2.0, 0.2]], np.float32), index, 2, backend=backend)
    assert hits.rows.tolist() == [[1, 2]]
    assert hits.cosines[0, 0] == pytest.approx(2 / math.hypot(2, 0.2))


def test_a_search_that_cannot_be_is_refused():
    rows = np.zeros((3, 2), np.float32)
    with pytest.raises(ValueError, match=r"k 4, allowed: 1\.\.3"):
        search.nearest(rows, rows, 4)
    with pytest.raises(ValueError, match="queries of 1 numbers, the index has 2"):
        search.nearest(rows[:, :1], rows, 1)
    with pytest.raises(ValueError, match="unknown backend 'jaxx'"):
        search.nearest(rows, rows, 1, backend="jaxx")


def test_an_interval_is_seeded_and_shrinks_with_the_number_of_examples():
    values = np.random.default_rng(0).normal(size=400)
    few = bootstrap.interval(lambda rows: float(values[rows].mean()), 25)
    many = bootstrap.interval(lambda rows: float(values[rows].mean()), 400)
    assert few == bootstrap.interval(lambda rows: float(values[rows].mean()), 25)
    assert many[1] - many[0] < (few[1] - few[0]) / 2
    # about 1.96 standard errors on both sides
    assert many[1] - many[0] == pytest.approx(2 * 1.96 / 20, rel=0.2)


def test_scores_that_are_no_numbers_leave_an_interval_of_the_others():
    low, high = bootstrap.interval(lambda rows: math.nan if rows[0] == 0 else 1.0, 2)
    assert (low, high) == (1.0, 1.0)
    assert math.isnan(bootstrap.interval(lambda rows: math.nan, 2)[0])
    assert bootstrap.overlap((0, 1), (1, 2)) and not bootstrap.overlap((0, 1), (1.5, 2))


def test_a_palette_without_colours_is_no_part_of_the_usual_one():
    palettes = [np.zeros((0, 3), np.uint8), np.array([[9, 9, 9]], np.uint8)]
    usual = measure.load("palette_distance").constant(palettes)
    assert usual.tolist() == [[9, 9, 9]]
