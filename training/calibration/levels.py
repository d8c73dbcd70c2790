"""The two default levels of a strategy: from which probability on a phrase or a mask counts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..evaluation.figures.matching import take_objects
from ..evaluation.figures.probabilities import level_of_recall

_MATCH = 0.5  # IoU from which a mask is an object, as in COCO's AP50


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoredMasks:
    """The masks of a phrase in a photo that has it."""

    scores: NDArray[np.float64]  # (K,) float64
    overlaps: NDArray[np.float64]  # (K, T) IoU with each of its objects
    # (K,) bool, False for masks that lie mostly on pixels without a truth; such a mask counts only
    # if it matches.
    counted: NDArray[np.bool_]
    objects: int  # T


def presence_level(present: Sequence[float], *, recall: float) -> float:
    """The highest level that a share `recall` of the phrases that are there still reaches."""
    level = level_of_recall(present, recall)
    if level is None:
        raise ValueError("got no phrase that is in its photo; a level is chosen by those")
    return _rounded_down(level)


def matched_in_order(masks: ScoredMasks) -> NDArray[np.bool_]:
    """Whether each mask takes an object, (K,) bool: by falling score, one object each."""
    order = np.argsort(-masks.scores, kind="stable")
    matched = np.zeros(len(masks.scores), dtype=bool)
    matched[order] = take_objects(masks.overlaps[order], level=_MATCH) >= 0
    return matched


def score_level(phrases: Iterable[ScoredMasks]) -> float:
    """The level with the best F1 of instances: 2 matched / (objects + masks).

    Of equally good levels the lowest, half-way to the next mask that would come in; 0 if every mask
    is better kept.
    """
    scores: list[float] = []
    hits: list[bool] = []
    objects = 0
    for masks in phrases:
        matched = matched_in_order(masks)
        counts = masks.counted | matched
        scores += masks.scores[counts].tolist()
        hits += matched[counts].tolist()
        objects += masks.objects
    if not any(hits):
        return 0.0
    order = np.argsort(-np.array(scores), kind="stable")
    ordered, hit = np.array(scores)[order], np.array(hits)[order]
    # F1 when the first k masks are kept, for every k.
    f1 = 2 * np.cumsum(hit) / (objects + np.arange(1, len(hit) + 1))
    last = np.append(ordered[1:] < ordered[:-1], True)  # equal scores stay or go together
    places = np.nonzero(last)[0]
    best = int(places[f1[places] >= f1[places].max() - 1e-12][-1])
    if best == len(ordered) - 1:
        return 0.0
    return _rounded_down((ordered[best] + ordered[best + 1]) / 2)


def _rounded_down(level: float) -> float:
    return math.floor(level * 1000) / 1000  # a level has three decimals
