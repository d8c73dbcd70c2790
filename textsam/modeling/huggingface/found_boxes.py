"""Boxes that a detector found for phrases: plain arrays, original pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["FoundBoxes", "box_iou", "join_groups"]

# IoU from which boxes of two runs are one object: each run has its own phrases, so that an object
# is found in both, by the best phrase of each.
_SAME_BOX = 0.8


@dataclass(frozen=True, kw_only=True, eq=False)
class FoundBoxes:
    """N boxes of a photo for P phrases, best score first.

    Attributes:
        boxes: (N, 4) float32 half-open x0, y0, x1, y1 in original pixels, inside the photo.
        scores: (N,) float32 score of the box, 0 to 1, by which the model's own post-processing
            keeps it.
        text_scores: (N, P) float32 score of each phrase for the box; not above `scores`.
        own: (N, P) bool, whether the box belongs to the phrase at all, as in that post-processing.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    text_scores: NDArray[np.float32]
    own: NDArray[np.bool_]

    def __len__(self) -> int:
        """N."""
        return len(self.boxes)


def join_groups(groups: Sequence[FoundBoxes]) -> FoundBoxes:
    """One answer of runs with different phrases; columns stay in the order of the runs.

    Of boxes of two runs that are the same object only the better one belongs to its phrase.
    """
    if len(groups) == 1:
        return groups[0]
    rows = np.concatenate([np.full(len(group), i) for i, group in enumerate(groups)])
    widths = [group.own.shape[1] for group in groups]
    starts = np.cumsum([0, *widths])
    text_scores = np.zeros((len(rows), sum(widths)), np.float32)
    own = np.zeros(text_scores.shape, np.bool_)
    for i, group in enumerate(groups):
        text_scores[rows == i, starts[i] : starts[i + 1]] = group.text_scores
        own[rows == i, starts[i] : starts[i + 1]] = group.own
    boxes = np.concatenate([group.boxes for group in groups])
    scores = np.concatenate([group.scores for group in groups])
    # By the score of the phrase that a box belongs to; the model's box scores know other tokens.
    best = np.where(own, text_scores, 0).max(1)
    better = (best[None] > best[:, None]) & (rows[None] != rows[:, None])
    own &= ~(better & (box_iou(boxes, boxes) > _SAME_BOX)).any(1)[:, None]
    order = np.argsort(-scores, kind="stable")
    return FoundBoxes(
        boxes=boxes[order], scores=scores[order], text_scores=text_scores[order], own=own[order]
    )


def box_iou(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """IoU of boxes (N, 4) with boxes (M, 4): (N, M); 0 for boxes without area."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = (high - low).clip(min=0).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clip(min=0).prod(-1) for boxes in (a, b)]
    union = areas[0][:, None] + areas[1][None] - common
    iou: NDArray[np.float32] = (common / np.maximum(union, 1e-9)).astype(np.float32)
    return iou
