"""`overlap="exclusive"`: each pixel belongs to at most one mask.

The higher score wins, except between a part and its whole: a wheel in a car keeps its pixels,
whatever their scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from textsam.values.judge import Candidate, PhraseAnswer
from textsam.values.rle import RLE, merge_rles, rle_area, rle_areas, rle_common_areas
from textsam.values.rle_ops import subtract_rle

# A mask is a part of another if this share of it lies inside, and it has at most that share of
# the other's area.
_PART_INSIDE = 0.8
_PART_SIZE = 0.5
_MIN_LEFT = 0.4  # a mask that keeps a smaller share of its pixels is dropped


def without_overlap(answers: Sequence[PhraseAnswer]) -> list[PhraseAnswer]:
    """Give every pixel to at most one mask of all phrases of a photo.

    Masks stay run-length coded, so the size of the photo does not matter.
    """
    places = [
        (a, c)
        for a, answer in enumerate(answers)
        for c, item in enumerate(answer.candidates)
        if item.gate is None
    ]
    if len(places) < 2:
        return list(answers)
    items = [answers[a].candidates[c] for a, c in places]
    changed = dict(zip(places, _share_out(items), strict=True))
    result = []
    for a, answer in enumerate(answers):
        candidates = tuple(changed.get((a, c), item) for c, item in enumerate(answer.candidates))
        answer = replace(answer, candidates=candidates, dependent=True)
        if answer.gate is None and candidates and not answer.kept:
            answer = replace(answer, gate="overlap", reason=candidates[0].reason)
        result.append(answer)
    return result


def _share_out(items: Sequence[Candidate]) -> list[Candidate]:
    taken: list[RLE] = []
    result = list(items)
    for index in _order(items):
        item = items[index]
        own = subtract_rle(item.rle, taken)
        left = rle_area(own) / max(1, rle_area(item.rle))
        if left < _MIN_LEFT:
            reason = f"{1 - left:.0%} of it belongs to other masks"
            result[index] = replace(
                item, gate="overlap", reason=reason, ruled_out=("overlap", reason)
            )
            continue
        if left < 1:
            result[index] = replace(item, rle=own, low_res=None)
        taken = [merge_rles([*taken, item.rle], item.rle.size)]
    return result


def _order(items: Sequence[Candidate]) -> list[int]:
    """Order in which masks take their pixels: parts before their wholes, then by score."""
    rles = [item.rle for item in items]
    areas = rle_areas(rles)
    common = rle_common_areas(rles, rles)
    part = (common >= _PART_INSIDE * areas[:, None]) & (
        areas[:, None] <= _PART_SIZE * areas[None, :]
    )
    order: list[int] = []
    scores = np.nan_to_num([item.score for item in items], nan=0.0)
    for index in np.argsort(-scores, kind="stable"):
        wholes = [place for place, other in enumerate(order) if part[index, other]]
        order.insert(min(wholes, default=len(order)), int(index))
    return order
