"""Presence: whether a model knows that a phrase is in the photo at all.

The score of a phrase is what a user reads, `Segmentation.presence[phrase]`; its verdict is whether
the answer holds a mask. Over phrases that an exhaustive photo has and ALL other labels of the file,
the area under the ROC curve is the chance that a positive scores above a negative, a tie counting
half (Hanley and McNeil, Radiology 143, 1982): 0.5 for a model that knows nothing. Verdicts, and
what the probability is worth, are measured on the phrases that are there and a few drawn absent
ones (`questions.draw_absent`), half of them siblings.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..clicks.protocol import mean
from .bootstrap import ratio_interval
from .reliability import Claim, calibration_error, reliability

__all__ = ["PresencePair", "auroc", "level_of_recall", "presence_means", "ranks", "verdict_means"]

# Where strategies are compared with each other: the same recall of what is there.
_RECALL = 0.85


@dataclass(frozen=True, kw_only=True)
class PresencePair:
    """A phrase asked of a photo.

    Attributes:
        image_id: The photo.
        label: The phrase.
        present: Whether the photo has it.
        score: What the model says, higher for "it is there"; any scale. None if it says nothing.
        answered: Whether it painted a pixel.
        drawn: Whether it is one of the present or of the few drawn absent phrases.
        sibling: Whether it was drawn as a hard one.
    """

    image_id: str
    label: str
    present: bool
    score: float | None
    answered: bool = False
    drawn: bool = True
    sibling: bool = False


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
    """AUROC over all pairs with a score, and the mean of each phrase's own.

    Over all pairs a phrase that scores high everywhere costs; within one phrase only the photos
    are compared.

    Returns:
        `present` and `absent` (numbers of pairs), `auroc`, `auroc_phrase` (mean over the phrases
        that some photo has and some photo lacks), `phrases` (how many those are) and `labels` (the
        AUROC of each). AUROCs are None where nothing can be compared.
    """
    groups: dict[str, tuple[list[float], list[float]]] = {}
    for pair in pairs:
        if pair.score is not None:
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


def level_of_recall(positive: Sequence[float], recall: float) -> float | None:
    """The highest level that at least this share of the positives reaches; None without any."""
    if not positive:
        return None
    needed = max(1, math.ceil(recall * len(positive) - 1e-9))
    return sorted(positive, reverse=True)[needed - 1]


def verdict_means(pairs: Iterable[PresencePair], *, seed: int = 0) -> dict[str, Any]:
    """Verdicts of present and drawn absent phrases, and what their probabilities are worth.

    Returns:
        `present`, `absent`, `siblings` (numbers); `precision`, `recall`, `f1` of "it is there",
        read off whether the answer holds a mask; `absent_empty` and `siblings_empty`: share of them
        answered with nothing; the same with `_at` where the level of presence is put so high that
        just .85 of the present phrases reach it (`level_at`); `auroc`, `auroc_siblings`; `ece` and
        `reliability` of the presence as a probability; `absent_empty_interval` and
        `recall_interval`. None where nothing was measured.
    """
    drawn = [pair for pair in pairs if pair.drawn]
    there = [pair for pair in drawn if pair.present]
    absent = [pair for pair in drawn if not pair.present]
    siblings = [pair for pair in absent if pair.sibling]
    hits, false_alarms = sum(p.answered for p in there), sum(p.answered for p in absent)
    level = level_of_recall(_scores(there), _RECALL)
    said = [p for p in drawn if p.score is not None and 0 <= p.score <= 1]
    claims = [Claim(probability=p.score or 0.0, true=p.present) for p in said]
    return {
        "present": len(there),
        "absent": len(absent),
        "siblings": len(siblings),
        "precision": hits / (hits + false_alarms) if hits + false_alarms else None,
        "recall": mean(p.answered for p in there),
        "f1": 2 * hits / (len(there) + hits + false_alarms) if there else None,
        "absent_empty": mean(not p.answered for p in absent),
        "siblings_empty": mean(not p.answered for p in siblings),
        "level_at": level,
        "absent_empty_at": _below(absent, level),
        "siblings_empty_at": _below(siblings, level),
        "auroc": auroc(_scores(there), _scores(absent)),
        "auroc_siblings": auroc(_scores(there), _scores(siblings)),
        "ece": calibration_error(claims),
        "reliability": reliability(claims),
        "recall_interval": ratio_interval([(p.image_id, p.answered, 1) for p in there], seed=seed),
        "absent_empty_interval": ratio_interval(
            [(p.image_id, not p.answered, 1) for p in absent], seed=seed
        ),
    }


def _scores(pairs: Iterable[PresencePair]) -> list[float]:
    return [pair.score for pair in pairs if pair.score is not None]


def _below(pairs: Iterable[PresencePair], level: float | None) -> float | None:
    """Share of the scores that do not reach a level."""
    return None if level is None else mean(score < level for score in _scores(pairs))
