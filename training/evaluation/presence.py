"""Presence: whether a model knows that a phrase is in the photo at all, as an AUROC.

The score of a phrase is what a user reads: `Segmentation.presence[phrase]`. Phrases that an
exhaustive photo has are positives, ALL other labels of the file are negatives, none is drawn. The
area under the ROC curve is the chance that a positive scores above a negative, a tie counting half
(Hanley and McNeil, Radiology 143, 1982): 0.5 for a model that knows nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .protocol import mean

__all__ = ["PresencePair", "auroc", "presence_means", "ranks"]


@dataclass(frozen=True, kw_only=True)
class PresencePair:
    """A phrase asked of a photo.

    Attributes:
        image_id: The photo.
        label: The phrase.
        present: Whether the photo has it.
        score: What the model says, higher for "it is there"; any scale.
    """

    image_id: str
    label: str
    present: bool
    score: float


def ranks(values: ArrayLike) -> NDArray[np.float64]:
    """Ranks from 1 of (n,) numbers; equal ones share the mean of their ranks."""
    array = np.asarray(values, dtype=np.float64)
    _, place, counts = np.unique(array, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    shared: NDArray[np.float64] = (last - (counts - 1) / 2)[place]
    return shared


def auroc(positive: Sequence[float], negative: Sequence[float]) -> float | None:
    """Area under the ROC curve, exactly, by the rank sum of the positives (Mann-Whitney).

    Args:
        positive: Scores of what is there.
        negative: Scores of what is not.

    Returns:
        0 to 1; None if either side is empty.

    Raises:
        ValueError: A score is NaN, which has no rank.
    """
    n, m = len(positive), len(negative)
    if not n or not m:
        return None
    scores = np.concatenate([np.asarray(positive, float), np.asarray(negative, float)])
    if np.isnan(scores).any():
        raise ValueError(f"auroc: {int(np.isnan(scores).sum())} of {n + m} scores are NaN")
    return float((ranks(scores)[:n].sum() - n * (n + 1) / 2) / (n * m))


def presence_means(pairs: Iterable[PresencePair]) -> dict[str, Any]:
    """AUROC over all pairs, and the mean of each phrase's own.

    Over all pairs a phrase that scores high everywhere costs; within one phrase only the photos
    are compared.

    Returns:
        `present` and `absent` (numbers of pairs), `auroc`, `auroc_phrase` (mean over the phrases
        that some photo has and some photo lacks), `phrases` (how many those are) and `labels` (the
        AUROC of each). AUROCs are None where nothing can be compared.
    """
    groups: dict[str, tuple[list[float], list[float]]] = {}
    for pair in pairs:
        groups.setdefault(pair.label, ([], []))[0 if pair.present else 1].append(pair.score)
    labels = {label: auroc(*groups[label]) for label in sorted(groups)}
    positive = [score for there, _ in groups.values() for score in there]
    negative = [score for _, lacking in groups.values() for score in lacking]
    compared = [value for value in labels.values() if value is not None]
    return {
        "present": len(positive),
        "absent": len(negative),
        "auroc": auroc(positive, negative),
        "auroc_phrase": mean(compared),
        "phrases": len(compared),
        "labels": labels,
    }
