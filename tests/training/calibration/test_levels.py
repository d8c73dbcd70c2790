from __future__ import annotations

import numpy as np
import pytest

from training.calibration.curves import ScoredMasks, matched_in_order, presence_level, score_level


def _masks(scores, overlaps, *, counted=None) -> ScoredMasks:
    grid = np.array(overlaps, dtype=float)
    return ScoredMasks(
        scores=np.array(scores, dtype=float),
        overlaps=grid,
        counted=np.ones(len(scores), bool) if counted is None else np.array(counted),
        objects=grid.shape[1],
    )


def _f1(phrases, level: float) -> float:
    """By the definition: match what is left, then count."""
    matched = shown = 0
    for masks in phrases:
        kept = masks.scores >= level
        left = _masks(masks.scores[kept], masks.overlaps[kept])
        hits = matched_in_order(left) if kept.any() else np.zeros(0, bool)
        matched += int(hits.sum())
        shown += int((masks.counted[kept] | hits).sum())
    return 2 * matched / (shown + sum(masks.objects for masks in phrases))


def test_the_level_of_presence_keeps_the_share():
    present = np.random.default_rng(0).random(200).tolist()

    for recall in (0.5, 0.85, 0.9, 0.99):
        level = presence_level(present, recall=recall)
        assert np.mean(np.array(present) >= level) >= recall
        assert np.mean(np.array(present) >= level + 0.02) < recall


def test_the_level_of_presence_is_rounded_down():
    assert presence_level([0.12389, 0.9], recall=0.9) == 0.123
    assert presence_level([0.5], recall=0.5) == 0.5


def test_without_a_phrase_there_is_no_level():
    with pytest.raises(ValueError, match="no phrase that is in its photo"):
        presence_level([], recall=0.9)


def test_an_object_is_taken_once_by_the_best_score():
    masks = _masks([0.2, 0.9, 0.5], [[0.95, 0.6], [0.7, 0.0], [0.8, 0.4]])

    # 0.9 takes object 0, so 0.5 gets nothing and 0.2 takes the other one.
    assert matched_in_order(masks).tolist() == [True, True, False]
    assert matched_in_order(_masks([0.9], [[0.49]])).tolist() == [False]
    assert matched_in_order(_masks([0.9, 0.8], [[], []])).tolist() == [False, False]


def test_the_level_of_scores_parts_right_from_wrong():
    phrases = [_masks([0.8, 0.7, 0.3, 0.2], [[0.9, 0], [0, 0.9], [0.1, 0], [0, 0]])]

    level = score_level(phrases)

    assert level == 0.5
    assert _f1(phrases, level) == 1.0


def test_no_level_does_better():
    rng = np.random.default_rng(1)
    phrases = [_masks(rng.random(6), rng.random((6, 3))) for _ in range(20)]

    best = _f1(phrases, score_level(phrases))

    assert best >= max(_f1(phrases, level) for level in np.linspace(0, 1, 401)) - 1e-9


def test_objects_without_a_mask_pull_the_level_down():
    """A weak mask that is right half the time is worth it only while much is still missing."""
    own = _masks([0.9, 0.4, 0.4], [[0.9, 0], [0, 0.9], [0, 0]])
    missed = _masks([], np.zeros((0, 4)))

    assert score_level([own, missed]) == 0
    wrong = [_masks([0.9], [[0.9]])] * 5 + [_masks([0.4, 0.4, 0.4], [[0.9], [0], [0]])]
    assert score_level(wrong) > 0.4


def test_what_lies_on_void_counts_only_if_it_matches():
    void = _masks([0.9, 0.3], [[0.9], [0.0]], counted=[False, False])

    assert score_level([void]) == 0
    assert score_level([_masks([0.9, 0.3], [[0.9], [0.0]])]) == 0.6


def test_without_a_match_everything_is_kept():
    assert score_level([_masks([0.9, 0.3], [[0.1], [0.0]])]) == 0
    assert score_level([]) == 0
