"""Levels of single phrases, learnt from photos with and without each.

A phrase's levels are those with the best F1 of instances on its own photos and on a prior: the
counts of all other phrases, scaled down to a few photos. With few photos of its own a phrase stays
near the common levels, with many it goes its own way.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textsam.values.judge import PhraseLevels, StrategyCurves

from .curves import chance_of, deal_photos, matched_in_order, score_masks
from .evidence import PhraseEvidence

MIN_PHOTOS = 3  # with the phrase, and without it; fewer photos give it no levels of its own
# Photos with the phrase that the prior counts for: 1, 3 and 10 gave an F1 of .635, .637 and .635 on
# photos kept out of the training of `tiny`, 10 of them labelled (.627 with the common levels).
PRIOR_PHOTOS = 3.0

# Levels that are tried, as log odds from the common one.
_STEPS = np.arange(-12, 13) / 4
_MIN_LEVEL = 0.001

Vector = NDArray[np.float64]


class _Counts:
    """Answers of some photos, from which matched masks, masks and objects follow at any levels."""

    def __init__(self, phrases: Iterable[PhraseEvidence], curves: StrategyCurves) -> None:
        chances: list[float] = []
        scores: list[float] = []
        hits: list[bool] = []
        self.objects = 0
        self.present = 0
        for phrase in phrases:
            self.present += phrase.present
            self.objects += phrase.objects if phrase.present else 0
            masks = score_masks(phrase, curves.score)
            hit = matched_in_order(masks)
            # A mask on pixels without a truth that matches nothing is neither right nor wrong.
            counted = masks.counted | hit
            chances += [chance_of(phrase, curves.presence)] * int(counted.sum())
            scores += masks.scores[counted].tolist()
            hits += hit[counted].tolist()
        self._chances, self._scores = np.array(chances), np.array(scores)
        self._hits = np.array(hits, dtype=bool)

    def at(self, presence: float, score: float) -> Vector:
        """Matched masks, masks and objects."""
        kept = (self._chances >= presence) & (self._scores >= score)
        return np.array([(kept & self._hits).sum(), kept.sum(), self.objects], dtype=np.float64)


def learn_levels(
    phrases: Sequence[PhraseEvidence],
    curves: StrategyCurves,
    *,
    key: Callable[[str], str],
    min_photos: int = MIN_PHOTOS,
    prior: float = PRIOR_PHOTOS,
) -> tuple[dict[str, PhraseLevels], dict[str, str]]:
    """Levels by phrase, and why the other phrases have none of their own.

    Args:
        phrases: Answers of photos.
        curves: The curves and the common levels.
        key: What a phrase is looked up by: `ModelParts.phrase_key`.
        min_photos: Photos with a phrase, and without it, that its levels need.
        prior: Photos with the phrase that the prior counts for.
    """
    by_key: dict[str, list[PhraseEvidence]] = defaultdict(list)
    for phrase in phrases:
        by_key[key(phrase.label)].append(phrase)
    levels: dict[str, PhraseLevels] = {}
    left_out: dict[str, str] = {}
    for name, own in sorted(by_key.items()):
        there = sum(phrase.present for phrase in own)
        if min(there, len(own) - there) < min_photos:
            left_out[name] = f"{there} photos with it and {len(own) - there} without"
            continue
        others = _Counts((p for k, rows in by_key.items() if k != name for p in rows), curves)
        weight = prior / max(1, others.present)
        levels[name] = _best_levels(_Counts(own, curves), others, weight, curves)
    return levels, left_out


def _best_levels(
    own: _Counts, others: _Counts, weight: float, common: StrategyCurves
) -> PhraseLevels:
    """Presence first, then the score; of equally good levels the nearest to the common one."""

    def f1(presence: float, score: float) -> float:
        return f1_of(own.at(presence, score) + weight * others.at(presence, score))

    # `max` takes the first of equals.
    presences, scores = (_near(level) for level in (common.min_presence, common.min_score))
    presence = max(presences, key=lambda level: round(f1(level, common.min_score), 6))
    score = max(scores, key=lambda level: round(f1(presence, level), 6))
    return PhraseLevels(min_presence=round(presence, 3), min_score=round(score, 3))


def _near(level: float) -> list[float]:
    """A level and others around it, the nearest first."""
    start = max(level, _MIN_LEVEL)
    middle = math.log(start / (1 - start))
    steps = sorted(_STEPS[_STEPS != 0], key=abs)
    return [level, *(1 / (1 + math.exp(-middle - step)) for step in steps)]


def add_levels(
    phrases: Sequence[PhraseEvidence],
    curves: StrategyCurves,
    *,
    key: Callable[[str], str],
    fit: Callable[[Sequence[PhraseEvidence]], StrategyCurves],
    seed: int,
) -> tuple[StrategyCurves, dict[str, Any]]:
    """The curves with levels by phrase, and facts about them.

    Returns:
        The curves, and `left_out`, why phrases have none, with `f1_common` and `f1_own`, the F1 of
        instances on photos left out of the fit, with the common levels and with levels by phrase.
    """
    levels, left_out = learn_levels(phrases, curves, key=key)
    before, after = np.zeros(3), np.zeros(3)
    for inside, outside in deal_photos(phrases, seed=seed):
        fitted = fit(outside)
        learnt, _ = learn_levels(outside, fitted, key=key)
        before += count_masks(inside, fitted, key=key)
        after += count_masks(inside, replace(fitted, phrases=learnt), key=key)
    facts = {"left_out": left_out, "f1_common": f1_of(before), "f1_own": f1_of(after)}
    return replace(curves, phrases=levels), facts


def count_masks(
    phrases: Iterable[PhraseEvidence], curves: StrategyCurves, *, key: Callable[[str], str]
) -> Vector:
    """Matched masks, masks (also of phrases that are not there) and objects, (3,)."""
    by_key: dict[str, list[PhraseEvidence]] = defaultdict(list)
    for phrase in phrases:
        by_key[key(phrase.label)].append(phrase)
    total = np.zeros(3)
    for name, own in by_key.items():
        levels = curves.of(name)
        total += _Counts(own, curves).at(levels.min_presence, levels.min_score)
    return total


def f1_of(counts: Vector) -> float:
    """2 matched / (masks + objects)."""
    matched, masks, objects = counts.tolist()
    return 2 * matched / (masks + objects) if masks + objects else 0.0
