"""`training.evaluation.figures.probabilities`: the AUROC equals its definition, ties and all."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.evaluation.figures.probabilities import (
    PresencePair,
    auroc,
    level_of_recall,
    presence_means,
    verdict_means,
)

# Few distinct values, so that most examples have ties, within a side and across.
SCORES = st.lists(st.sampled_from([-1.0, 0.0, 0.1, 0.5, 0.5000001, 7.0]), min_size=1, max_size=12)


def _by_pairs(positive: list[float], negative: list[float]) -> float:
    """The definition: the share of pairs in which the positive wins, ties count half."""
    wins = sum((p > n) + 0.5 * (p == n) for p in positive for n in negative)
    return wins / (len(positive) * len(negative))


@given(SCORES, SCORES)
def test_it_is_the_share_of_pairs_that_are_in_order(positive, negative):
    assert auroc(positive, negative) == pytest.approx(_by_pairs(positive, negative), abs=1e-12)


@given(SCORES, SCORES)
def test_the_other_side_and_any_rising_scale_give_what_they_must(positive, negative):
    area = auroc(positive, negative)

    assert area is not None
    assert auroc(negative, positive) == pytest.approx(1 - area)
    assert auroc([math.atan(p) for p in positive], [math.atan(n) for n in negative]) == area


def test_on_many_scores_it_is_exact():
    rng = np.random.default_rng(0)
    positive = rng.integers(3, 40, 300).astype(float).tolist()
    negative = rng.integers(0, 30, 700).astype(float).tolist()

    assert auroc(positive, negative) == pytest.approx(_by_pairs(positive, negative), abs=1e-12)


def test_small_numbers_by_hand():
    assert auroc([0.9, 0.8], [0.1]) == 1.0
    assert auroc([0.1], [0.9, 0.8]) == 0.0
    assert auroc([0.5], [0.5, 0.5]) == 0.5
    assert auroc([0.3, 0.7], [0.5, 0.3]) == pytest.approx(2.5 / 4)
    assert auroc([5.0, 9.0], [5.0, 1.0]) == (0.5 + 1 + 1 + 1) / 4


def test_without_both_sides_there_is_no_figure():
    assert auroc([], [0.1]) is None
    assert auroc([0.1], []) is None


def test_a_score_that_is_not_a_number_is_refused():
    with pytest.raises(ValueError, match="1 of 3 scores are NaN"):
        auroc([0.5, float("nan")], [0.1])


def _pair(label: str, present: bool, score: float) -> PresencePair:
    return PresencePair(image_id="a", label=label, present=present, score=score)


def test_a_phrase_that_shouts_everywhere_costs_over_all_pairs_but_not_within_itself():
    pairs = [
        *(_pair("loud", True, 0.95), _pair("loud", False, 0.90)),
        *(_pair("low", True, 0.20), _pair("low", False, 0.10)),
    ]

    means = presence_means(pairs)

    assert means["auroc_phrase"] == 1.0
    assert means["auroc"] == 0.75  # "low" where it is, below "loud" where it is not
    assert (means["present"], means["absent"], means["phrases"]) == (2, 2, 2)


def test_a_phrase_that_every_photo_has_is_no_phrase_to_compare():
    means = presence_means([_pair("sky", True, 0.3), _pair("cat", False, 0.2)])

    assert means["labels"] == {"cat": None, "sky": None}
    assert means["auroc"] == 1.0
    assert means["auroc_phrase"] is None
    assert presence_means([])["auroc"] is None


def _asked(present: bool, score: float | None, answered: bool, **kind: bool) -> PresencePair:
    return PresencePair(
        image_id="a", label="cat", present=present, score=score, answered=answered, **kind
    )


def test_the_level_of_recall_is_the_highest_that_lets_enough_pass():
    scores = [0.9, 0.8, 0.7, 0.6, 0.5]

    assert level_of_recall(scores, 0.8) == 0.6
    assert level_of_recall(scores, 0.81) == 0.5
    assert level_of_recall(scores, 0.0) == 0.9
    assert level_of_recall([], 0.5) is None


@given(SCORES, st.floats(0.01, 1.0))
def test_no_higher_level_keeps_the_recall(scores, recall):
    level = level_of_recall(scores, recall)

    assert level is not None
    assert np.mean(np.array(scores) >= level) >= recall - 1e-9
    assert np.mean(np.array(scores) > level) < recall


def test_verdicts_are_masks_and_not_scores():
    pairs = [
        *(_asked(True, 0.9, True), _asked(True, 0.6, False), _asked(True, 0.8, True)),
        *(_asked(False, 0.7, True, sibling=True), _asked(False, 0.2, False)),
        _asked(False, 0.99, True, drawn=False),  # for AUROC over all labels alone
    ]
    means = verdict_means(pairs)

    assert (means["present"], means["absent"], means["siblings"]) == (3, 2, 1)
    assert (means["precision"], means["recall"]) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert means["f1"] == pytest.approx(2 / 3)
    assert (means["absent_empty"], means["siblings_empty"]) == (0.5, 0.0)
    # At .85 recall all three must pass: the level is .6, which the sibling passes, too.
    assert (means["level_at"], means["absent_empty_at"], means["siblings_empty_at"]) == (
        0.6,
        0.5,
        0,
    )
    assert means["auroc"] == pytest.approx(5 / 6)
    assert means["ece"] == pytest.approx((0.1 + 0.4 + 0.2 + 0.7 + 0.2) / 5)


def test_a_model_that_says_no_presence_still_has_verdicts():
    means = verdict_means([_asked(True, None, True), _asked(False, None, True)])

    assert (means["precision"], means["recall"]) == (0.5, 1.0)
    assert means["auroc"] is means["ece"] is means["level_at"] is means["absent_empty_at"] is None
    empty = verdict_means([])
    assert empty["precision"] is empty["f1"] is empty["recall_interval"] is None
