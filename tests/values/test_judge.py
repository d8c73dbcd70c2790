import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textsam.values.judge import (
    Candidate,
    Levels,
    MaskNumbers,
    PhraseAnswer,
    best_first,
    find_repeats,
    is_present,
    judge,
    judge_mask,
)
from textsam.values.rle import encode_mask

LEVELS = Levels(presence=0.6, score=0.5, quality=0.2, place=0.3)


def rle(x0, x1):
    mask = np.zeros((4, 20), bool)
    mask[:, x0:x1] = True
    return encode_mask(mask)


def mask(score=0.9, x0=0, x1=10, **values):
    return Candidate(rle=rle(x0, x1), score=score, **values)


def answer(*candidates, presence=0.9, levels=LEVELS, **values):
    return PhraseAnswer(
        phrase="cat",
        strategy="auto",
        presence=presence,
        levels=levels,
        candidates=candidates,
        searched=bool(candidates),
        **values,
    )


# Levels ------------------------------------------------------------------------------------------


def test_a_threshold_takes_the_place_of_presence_and_score() -> None:
    assert (LEVELS.min_presence, LEVELS.min_score) == (0.6, 0.5)
    high = LEVELS.at(0.9)
    assert (high.min_presence, high.min_score) == (0.9, 0.9)
    assert high.at(None) == LEVELS


def test_a_low_threshold_accepts_rough_masks_and_faint_places_too() -> None:
    high, low, lowest = LEVELS.at(0.9), LEVELS.at(0.15), LEVELS.at(0.01)
    assert (high.min_quality, high.min_place) == (0.2, 0.3)
    assert (low.min_quality, low.min_place) == (0.15, 0.15)
    assert (lowest.min_quality, lowest.min_place) == (0.01, 0.1)


def test_fixed_levels_know_no_threshold() -> None:
    assert Levels(fixed=True).at(0.9) == Levels(fixed=True)


# One mask ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("numbers", "gate", "reason"),
    [
        ({"score": 0.9, "quality": 0.5}, None, ""),
        ({"score": 0.4}, "score", "score 0.40 < 0.50"),
        ({"score": 0.9, "quality": 0.1}, "quality", "predicted IoU x map 0.10 < 0.20"),
        ({"score": 0.4, "quality": 0.1}, "score", "score 0.40 < 0.50"),
        ({"score": 0.9, "excluded": 0.75}, "exclusion", "75% of it is rather what is excluded"),
        ({"score": 0.9, "excluded": 0.5}, None, ""),
        ({"rival": ("background", 1.0, 2.0)}, "background", "log odds 1.0 < 2.0"),
        ({"rival": ("exclusion", 2.0, 1.0)}, None, ""),
        ({"score": 0.1, "ruled_out": ("duplicate", "covered")}, "duplicate", "covered"),
        ({}, None, ""),  # what was not measured passes
    ],
)
def test_the_gate_of_a_mask(numbers, gate, reason) -> None:
    assert judge_mask(MaskNumbers(**numbers), LEVELS) == (gate, reason)


# A phrase ----------------------------------------------------------------------------------------


def test_without_masks_only_the_phrase_is_judged() -> None:
    assert judge(answer()).gate is None
    assert judge(answer(presence=math.nan)).gate is None
    absent = judge(answer(presence=0.237))
    assert (absent.gate, absent.reason) == ("presence", "presence 0.24 < 0.60")
    rivaled = judge(answer(rivaled={"exclusion": 0.7, "background": 0.3}))
    assert (rivaled.gate, rivaled.reason) == (
        "background",
        "presence of what is left 0.30 < 0.60",
    )
    assert is_present(0.6, LEVELS) and not is_present(0.59, LEVELS)


def test_nothing_proposed_is_the_gate_of_the_map() -> None:
    empty = judge(replace(answer(best_place=0.25), searched=True))
    assert (empty.gate, empty.reason) == ("map", "the best place has 0.25; regions start at 0.30")
    assert judge(replace(answer(), searched=True)).reason == "there are no automatic masks"


def test_masks_of_an_absent_phrase_have_its_gate() -> None:
    judged = judge(answer(mask(0.9), mask(0.1), presence=0.3))
    assert [item.gate for item in judged.candidates] == ["presence", "score"]
    assert judged.gate == "presence" and not judged.kept


def test_the_best_dropped_mask_tells_why_nothing_is_left() -> None:
    repeat = mask(0.45, ruled_out=("duplicate", "covered"))
    judged = judge(answer(repeat, mask(0.4), mask(0.3)))
    assert (judged.gate, judged.reason) == ("score", "score 0.40 < 0.50")
    assert judge(answer(repeat)).gate == "duplicate"


def test_better_masks_cover_worse_ones() -> None:
    """A mask that another gate dropped covers nothing."""
    covering = replace(LEVELS, max_covered=0.6)
    masks = mask(0.9, 0, 10), mask(0.8, 2, 10), mask(0.7, 0, 20), mask(0.6, 5, 15)
    gates = [item.gate for item in judge(answer(*masks), covering).candidates]
    assert gates == [None, "duplicate", "duplicate", None]
    lost = replace(masks[0], ruled_out=("overlap", "lost"))
    gates = [item.gate for item in judge(answer(lost, *masks[1:]), covering).candidates]
    assert gates == ["overlap", None, "duplicate", "duplicate"]
    assert not any(item.gate for item in judge(answer(*masks)).candidates)


def test_best_first() -> None:
    judged = best_first(judge(answer(mask(0.4), mask(0.6), mask(math.nan), mask(0.9))))
    assert [item.score for item in judged.candidates][:2] == [0.6, 0.9][::-1]
    assert [item.gate for item in judged.candidates] == [None, None, None, "score"]


PROBABILITY = st.floats(0, 1)
MASKS = st.lists(st.builds(mask, PROBABILITY, quality=PROBABILITY), max_size=4)


@given(MASKS, PROBABILITY, PROBABILITY, PROBABILITY)
def test_judging_again_forgets_the_first_verdict(masks, presence, first, second) -> None:
    fresh = answer(*masks, presence=presence)
    again = judge(judge(fresh, LEVELS.at(first)), LEVELS.at(second))
    once = judge(fresh, LEVELS.at(second))
    assert (again.gate, again.reason) == (once.gate, once.reason)
    assert [c.gate for c in again.candidates] == [c.gate for c in once.candidates]


@given(MASKS, PROBABILITY, st.lists(PROBABILITY, min_size=2, max_size=2).map(sorted))
def test_a_lower_threshold_never_leaves_less(masks, presence, thresholds) -> None:
    low, high = (judge(answer(*masks, presence=presence), LEVELS.at(t)) for t in thresholds)
    assert len(low.kept) >= len(high.kept)


# Repeats -----------------------------------------------------------------------------------------


def test_find_repeats() -> None:
    masks = np.zeros((4, 1, 10), bool)
    masks[0, :, :6] = masks[1, :, 4:10] = masks[2, :, 3:9] = masks[3, :, 8:] = True
    expected = ["", "", "100% of it is covered by better masks", "rejected"]
    assert find_repeats(masks, ["", "", "", "rejected"], max_covered=0.4) == expected
    # A mask that is a repeat covers nothing: its thing is covered by the one that it repeats.
    assert find_repeats(masks[1:], ["rejected", "", ""], max_covered=0.4)[1:] == [
        "",
        "50% of it is covered by better masks",
    ]
