"""What the probabilities of a model are worth: presence of phrases, AUROC, calibration error.

The score of a phrase is what a user reads, `Segmentation.presence[phrase]`; its verdict is whether
the answer holds a mask. AUROC is over phrases that an exhaustive photo has and ALL other labels of
the file. Verdicts and calibration errors are measured on the phrases that are there and a few drawn
absent ones (`questions.draw_absent`), half of them siblings.

The expected calibration error is that of Guo et al. (arXiv 1706.04599), Section 2, Equation 3:
probabilities are sorted into 15 bins of equal width, and the error is the mean over bins, weighted
by their counts, of |mean probability - share that is true|.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from textsam.errors import require

from .intervals import mean, ratio_interval

BINS = 15
# Strategies are compared with each other at the same recall of the phrases that are there.
_RECALL = 0.85


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A probability that something holds, and whether it does."""

    probability: float
    true: bool


@dataclass(frozen=True, kw_only=True)
class PresencePair:
    """A phrase asked of a photo."""

    image_id: str  # the photo
    label: str  # the phrase
    present: bool = False  # whether the photo has it
    # The model's score, higher for "it is there", on any scale; None if it gives none.
    score: float | None = None
    answered: bool = False  # whether a pixel was painted
    drawn: bool = True  # whether it is one of the present or of the few drawn absent phrases
    sibling: bool = False  # whether it was drawn as a hard one


def reliability(claims: Sequence[Claim], *, bins: int = BINS) -> list[dict[str, Any]]:
    """The filled bins, from low to high: `low`, `high`, `count`, `said` (mean), `true` (share)."""
    probability = np.array([claim.probability for claim in claims], dtype=np.float64)
    true = np.array([claim.true for claim in claims], dtype=np.float64)
    if not ((probability >= 0) & (probability <= 1)).all():
        raise ValueError(
            f"got probabilities from {probability.min()} to {probability.max()}; wanted 0 to 1, "
            "none NaN"
        )
    # A probability of 1 belongs to the last bin.
    place = np.minimum((probability * bins).astype(int), bins - 1)
    return [
        {
            "low": index / bins,
            "high": (index + 1) / bins,
            "count": int((place == index).sum()),
            "said": float(probability[place == index].mean()),
            "true": float(true[place == index].mean()),
        }
        for index in np.unique(place).tolist()
    ]


def calibration_error(claims: Sequence[Claim], *, bins: int = BINS) -> float | None:
    """Expected calibration error, 0 to 1; None without a claim."""
    rows = reliability(claims, bins=bins)
    total = sum(row["count"] for row in rows)
    return sum(r["count"] * abs(r["said"] - r["true"]) for r in rows) / total if total else None


def auroc(positive: Sequence[float], negative: Sequence[float]) -> float | None:
    """Area under the ROC curve: the chance that a positive scores above a negative.

    By the rank sum of the positives, a tie counting half (Hanley and McNeil, Radiology 143, 1982).

    Returns:
        0 to 1; 0.5 for scores that say nothing; None if either side is empty.
    """
    n, m = len(positive), len(negative)
    if not n or not m:
        return None
    scores = np.concatenate([np.asarray(positive, float), np.asarray(negative, float)])
    if np.isnan(scores).any():
        raise ValueError(f"auroc: {int(np.isnan(scores).sum())} of {n + m} scores are NaN")
    ranks = require("scipy.stats", "eval").rankdata(scores)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


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
    return {
        "present": len(positive),
        "absent": len(negative),
        "auroc": auroc(positive, negative),
        "auroc_phrase": mean(labels.values()),
        "phrases": sum(value is not None for value in labels.values()),
        "labels": labels,
    }


def level_of_recall(positive: Sequence[float], recall: float) -> float | None:
    """The highest level that at least this share of the positives reaches; None without any."""
    if not positive:
        return None
    # The small term keeps .85 * 20 = 17.000000000000004 from becoming 18.
    needed = max(1, math.ceil(recall * len(positive) - 1e-9))
    return sorted(positive, reverse=True)[needed - 1]


def verdict_means(pairs: Iterable[PresencePair], *, seed: int = 0) -> dict[str, Any]:
    """Verdicts of present and drawn absent phrases, and the calibration of their probabilities.

    Returns:
        `present`, `absent`, `siblings` (numbers); `precision`, `recall`, `f1` of "it is there", by
        whether the answer holds a mask; `absent_empty` and `siblings_empty`: share of them answered
        with nothing; the same with `_at` where the level of presence is raised until just .85 of
        the present phrases reach it (`level_at`); `auroc`, `auroc_siblings`; `ece` and
        `reliability` of the presence as a probability; `absent_empty_interval` and
        `recall_interval`. None where nothing was measured.
    """
    drawn = [pair for pair in pairs if pair.drawn]
    there = [pair for pair in drawn if pair.present]
    absent = [pair for pair in drawn if not pair.present]
    siblings = [pair for pair in absent if pair.sibling]
    hits, false_alarms = sum(p.answered for p in there), sum(p.answered for p in absent)
    level = level_of_recall(_scores(there), _RECALL)
    claims = [
        Claim(probability=p.score, true=p.present)
        for p in drawn
        if p.score is not None and 0 <= p.score <= 1
    ]
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
        "absent_empty_at": _share_below(absent, level),
        "siblings_empty_at": _share_below(siblings, level),
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


def _share_below(pairs: Iterable[PresencePair], level: float | None) -> float | None:
    return None if level is None else mean(score < level for score in _scores(pairs))
