"""Instances of excluded and background phrases compete with those of the phrase itself.

For strategies that find whole instances (`concept`, `detect`). A rival takes the object that it
covers as well ("wheel" without "steering wheel"), and the pixels of a part that lies inside a mask
("person" without "hat"), where its score is higher. A whole around a mask is no rival: a wheel may
lie in a car.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from textsam.values.judge import Candidate, Gate, PhraseAnswer, judge
from textsam.values.rle import rle_area, rle_areas, rle_common_areas
from textsam.values.rle_ops import subtract_rle

_SAME_OBJECT = 0.5  # IoU from which two masks are the same object
_INSIDE = 0.8  # share of a rival inside a mask from which it is a part of it
_LIMIT = 1e-6


def log_odds(probability: float) -> float:
    """Log odds of a probability, kept finite."""
    chance = min(max(probability, _LIMIT), 1 - _LIMIT)
    return math.log(chance / (1 - chance))


def cut_rivals(
    answers: Sequence[PhraseAnswer], rivals: Sequence[tuple[Gate, Candidate]]
) -> list[PhraseAnswer]:
    """Answers, judged again where rivals compete with their masks."""
    if not rivals:
        return list(answers)
    return [
        # Which rivals there are depends on the threshold, too.
        judge(replace(answer, candidates=against_rivals(answer.candidates, rivals), dependent=True))
        for answer in answers
    ]


def against_rivals(
    candidates: Sequence[Candidate],
    rivals: Sequence[tuple[Gate, Candidate]],  # "exclusion" or "background", and its mask
) -> tuple[Candidate, ...]:
    """Candidates with their strongest rival and without the pixels of better parts."""
    if not candidates or not rivals:
        return tuple(candidates)
    rles = [item.rle for _, item in rivals]
    common = rle_common_areas([item.rle for item in candidates], rles)
    areas = rle_areas(rles)
    result = []
    for item, shared in zip(candidates, common, strict=True):
        union = rle_area(item.rle) + areas - shared
        same = [k for k in range(len(rivals)) if shared[k] >= _SAME_OBJECT * union[k]]
        parts = [
            rle
            for k, rle in enumerate(rles)
            if k not in same and shared[k] >= _INSIDE * areas[k] and rivals[k][1].score > item.score
        ]
        if same:
            gate, other = max((rivals[k] for k in same), key=lambda pair: pair[1].score)
            item = replace(item, rival=(gate, log_odds(item.score), log_odds(other.score)))
        if parts:
            # The logits still have those pixels, so that a click starts from the mask itself.
            item = replace(item, rle=subtract_rle(item.rle, parts), low_res=None)
        result.append(item)
    return tuple(item for item in result if rle_area(item.rle))
