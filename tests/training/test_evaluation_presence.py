"""`training.evaluation.presence`: the AUROC equals its definition, ties and all."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.evaluation.presence import PresencePair, auroc, presence_means, ranks

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
    assert ranks([5.0, 1.0, 5.0, 9.0]).tolist() == [2.5, 1.0, 2.5, 4.0]


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
