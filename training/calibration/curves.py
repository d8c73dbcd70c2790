"""The curves of one strategy: presence first, then the masks of the phrases that pass it.

A mask's score is the probability that the phrase describes it GIVEN that the phrase passed: so it
is fitted on those masks only, and means what it says in a result. Figures are of photos that the
curves were not fitted on: the photos are dealt into folds, and each fold is judged by the curves
and levels of the others.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from textsam.errors import require
from textsam.values.judge import Curve, StrategyCurves

from ..evaluation.figures.intervals import mean
from ..evaluation.figures.matching import take_objects
from ..evaluation.figures.probabilities import Claim, auroc, calibration_error, level_of_recall
from .evidence import PhraseEvidence

logger = logging.getLogger(__name__)

Vector = NDArray[np.float64]

FOLDS = 5
_MIN_PHRASES = 5  # of either kind; fewer say nothing
_MATCH = 0.5  # IoU from which a mask is an object, as in COCO's AP50
_RIDGE = 1.0  # a pull on the slopes of one case's worth: it decides only where cases do not


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoredMasks:
    """The masks of a phrase in a photo that has it."""

    scores: NDArray[np.float64]  # (K,) float64
    overlaps: NDArray[np.float64]  # (K, T) IoU with each of its objects
    # (K,) bool, False for masks that lie mostly on pixels without a truth; such a mask counts only
    # if it matches.
    counted: NDArray[np.bool_]
    objects: int  # T


def fit_curves(
    phrases: Sequence[PhraseEvidence],
    *,
    recall: float,
    keep: float | None = None,
    min_score: float | None = None,
) -> StrategyCurves:
    """Fit both curves and choose both levels.

    `recall` is the share of the phrases that are there which must pass the level of presence,
    `keep` the share of the right masks which must pass that of scores (best F1 by default);
    `min_score` is that level itself.
    """
    present = [phrase.present for phrase in phrases]
    if min(sum(present), len(present) - sum(present)) < _MIN_PHRASES:
        raise ValueError(
            f"{len(phrases)} phrases were asked, {sum(present)} of them are in their photo; a "
            f"calibration needs {_MIN_PHRASES} that are and {_MIN_PHRASES} that are not. Ask more "
            "photos; of a set with one label, also photos without it"
        )
    fitted = [phrase for phrase in phrases if phrase.evidence]
    # Phrases without evidence are answered with nothing, whatever the curve says.
    presence = _fit([p.evidence for p in fitted], [p.present for p in fitted], what="presence")
    chances = [chance_of(phrase, presence) for phrase in phrases]
    there = [chance for chance, is_there in zip(chances, present, strict=True) if is_there]
    min_presence = presence_level(there, recall=recall)
    passed = [p for p, chance in zip(phrases, chances, strict=True) if chance >= min_presence]
    masks = [mask for phrase in passed for mask in phrase.masks if mask.counted]
    if not masks:
        raise ValueError(
            f"no mask was proposed for any of the {len(passed)} phrases that pass, so there is "
            "nothing to fit its score on. Ask more photos, or another model"
        )
    # Fitted on masks of phrases that pass: a score is given that the phrase is there.
    score = _fit([mask.evidence for mask in masks], [mask.right for mask in masks], what="score")
    if min_score is None:
        scored = [score_masks(phrase, score) for phrase in passed if phrase.present]
        matched = [value for item in scored for value in item.scores[matched_in_order(item)]]
        min_score = score_level(scored)
        if keep is not None and matched:
            min_score = presence_level(matched, recall=keep)
    return StrategyCurves(
        presence=presence,
        score=score,
        min_presence=min_presence,
        min_score=min_score,
    )


def measure_curves(
    phrases: Sequence[PhraseEvidence],
    *,
    recall: float,
    seed: int,
    keep: float | None = None,
    min_score: float | None = None,
) -> dict[str, Any]:
    """Figures (see `judge`) on photos left out of the fit, by the set's name and for "all"."""
    judged: list[tuple[PhraseEvidence, StrategyCurves]] = []
    for inside, outside in deal_photos(phrases, seed=seed):
        curves = fit_curves(outside, recall=recall, keep=keep, min_score=min_score)
        judged += [(phrase, curves) for phrase in inside]
    sources = sorted({phrase.source for phrase in phrases})
    figures = {"all": judge(judged)}
    if len(sources) > 1:
        for source in sources:
            figures[source] = judge([item for item in judged if item[0].source == source])
    return figures


def deal_photos(
    phrases: Sequence[PhraseEvidence], *, seed: int
) -> Iterator[tuple[list[PhraseEvidence], list[PhraseEvidence]]]:
    """The phrases of the photos in each fold, and those of the others."""
    photos = sorted({(phrase.source, phrase.photo) for phrase in phrases})
    if len(photos) < FOLDS:
        raise ValueError(f"got {len(photos)} photos; wanted at least {FOLDS}")
    order = np.random.default_rng(seed).permutation(len(photos))
    # Photos, not phrases, are dealt into folds: phrases of one photo are not independent.
    fold_of = {photos[index]: place % FOLDS for place, index in enumerate(order)}
    for fold in range(FOLDS):
        yield (
            [p for p in phrases if fold_of[p.source, p.photo] == fold],
            [p for p in phrases if fold_of[p.source, p.photo] != fold],
        )


def judge(judged: Iterable[tuple[PhraseEvidence, StrategyCurves]]) -> dict[str, Any]:
    """Figures of curves on phrases that they were not fitted on.

    Returns:
        `photos`, `present`, `absent`; of the presence its expected calibration error
        `presence_ece` (arXiv 1706.04599), `auroc`, and at the level `recall` of present phrases,
        `absent_empty` and `siblings_empty` (the share below); of the masks in the results `masks`,
        `right` (share), `score_ece`; of the instances of present phrases `instance_recall` and
        `instance_precision` at IoU .5. None where there is nothing to measure.
    """
    rows = [(p, chance_of(p, c.presence), c) for p, c in judged]
    there = [(p, chance, c) for p, chance, c in rows if p.present]
    absent = [(p, chance, c) for p, chance, c in rows if not p.present]
    claims: list[Claim] = []
    matched = shown = 0  # masks of present phrases: with an object, and in the result
    for phrase, chance, curves in rows:
        if chance < curves.min_presence:
            continue
        scored = score_masks(phrase, curves.score)
        kept = scored.scores >= curves.min_score
        claims += [
            Claim(probability=float(scored.scores[k]), true=phrase.masks[k].right)
            for k in np.nonzero(kept & scored.counted)[0]
        ]
        if phrase.present:
            hits = matched_in_order(scored) & kept
            matched += int(hits.sum())
            shown += int((kept & (scored.counted | hits)).sum())
    objects = sum(p.objects for p, _, _ in there)
    presences = [Claim(probability=chance, true=p.present) for p, chance, _ in rows]
    return {
        "photos": len({(p.source, p.photo) for p, _, _ in rows}),
        "present": len(there),
        "absent": len(absent),
        "presence_ece": calibration_error(presences),
        "auroc": auroc([chance for _, chance, _ in there], [chance for _, chance, _ in absent]),
        "recall": mean(chance >= c.min_presence for _, chance, c in there),
        "absent_empty": mean(chance < c.min_presence for _, chance, c in absent),
        "siblings_empty": mean(chance < c.min_presence for p, chance, c in absent if p.sibling),
        "masks": len(claims),
        "right": mean(claim.true for claim in claims),
        "score_ece": calibration_error(claims),
        "instance_recall": matched / objects if objects else None,
        "instance_precision": matched / shown if shown else None,
    }


def chance_of(phrase: PhraseEvidence, presence: Curve) -> float:
    """Presence of a phrase, 0 where the strategy proposed nothing."""
    return presence.probability(phrase.evidence) if phrase.evidence else 0.0


def _fit(evidence: Sequence[Mapping[str, float]], truth: Sequence[bool], *, what: str) -> Curve:
    """A curve through evidence that every case has; of what some lack it knows nothing."""
    every = {name for item in evidence for name in item}
    names = sorted(
        name for name in every if all(math.isfinite(e.get(name, math.nan)) for e in evidence)
    )
    if left_out := sorted(every - set(names)):
        logger.warning("%s: evidence %s is missing in some cases and left out", what, left_out)
    if not names:
        raise ValueError(
            f"{what}: there is no evidence that all {len(evidence)} cases have; some have "
            f"{sorted(every)}"
        )
    features = np.array([[item[name] for name in names] for item in evidence])
    slopes, bias = fit_logistic(features, platt_targets(truth))
    return Curve(weights=dict(zip(names, slopes.tolist(), strict=True)), bias=bias)


def score_masks(phrase: PhraseEvidence, score: Curve) -> ScoredMasks:
    """The masks of a phrase with their scores."""
    masks = phrase.masks
    return ScoredMasks(
        scores=np.array([score.probability(mask.evidence) for mask in masks], dtype=np.float64),
        overlaps=np.array([mask.overlaps for mask in masks]).reshape(len(masks), phrase.objects),
        counted=np.array([mask.counted for mask in masks], dtype=bool),
        objects=phrase.objects,
    )


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


def platt_targets(truth: ArrayLike) -> Vector:
    """What a perfect curve would say of (n,) cases, bool; never quite 0 or 1.

    Platt 1999, "Probabilistic outputs for support vector machines", Section 2.2: not 1 and 0 but
    Laplace's rule, so that a few cases that happen to separate do not make a step.
    """
    true = np.asarray(truth, dtype=bool)
    positive = int(true.sum())
    negative = len(true) - positive
    return np.where(true, (positive + 1) / (positive + 2), 1 / (negative + 2))


def fit_logistic(
    features: ArrayLike, targets: ArrayLike, *, ridge: float = _RIDGE
) -> tuple[Vector, float]:
    """Fit sigmoid(bias + features @ slopes) by least cross-entropy.

    Args:
        features: (n, d) finite.
        targets: (n,) probabilities, 0 to 1.
        ridge: Half of it times the squared slopes is added to the summed cross-entropy, the
            features brought to unit deviation first, so that it does not depend on their units.

    Returns:
        Slopes (d,) and the bias, for features as they came. A feature that does not vary has
        slope 0.
    """
    x = np.asarray(features, dtype=np.float64)
    y = np.asarray(targets, dtype=np.float64)
    if x.ndim != 2 or not len(x) or y.shape != (len(x),):
        raise ValueError(
            f"got features {x.shape} and targets {y.shape}; wanted (n, d) and (n,), n of at least 1"
        )
    if not (np.isfinite(x).all() and ((y >= 0) & (y <= 1)).all()):
        raise ValueError("a feature is not finite, or a target is not within 0 to 1")
    middle, spread = x.mean(axis=0), x.std(axis=0)
    varies = spread > 1e-9 * np.maximum(1.0, np.abs(middle))
    spread = np.where(varies, spread, 1.0)
    design = np.column_stack([np.where(varies, (x - middle) / spread, 0.0), np.ones(len(x))])
    pull = np.append(np.full(x.shape[1], float(ridge)), 0.0)
    solution = _minimum(design, y, pull)
    slopes = solution[:-1] / spread
    return slopes, float(solution[-1] - slopes @ middle)


def _minimum(x: Vector, y: Vector, pull: Vector) -> Vector:
    """Coefficients (d,) of a design matrix (n, d) that minimise cross-entropy and ridge."""
    optimize, expit = require("scipy.optimize", "train"), require("scipy.special", "train").expit

    def cost(beta: Vector) -> float:
        z = x @ beta
        return float((np.logaddexp(0, z) - y * z).sum() + 0.5 * (pull * beta**2).sum())

    def gradient(beta: Vector) -> Vector:
        return x.T @ (expit(x @ beta) - y) + pull * beta

    def curvature(beta: Vector) -> Vector:
        p = expit(x @ beta)
        return (x.T * (p * (1 - p))) @ x + np.diag(pull)

    start = np.zeros(x.shape[1])
    # Second order: first-order methods stop at a relative error of 1e-5 or so.
    options = {"gtol": 1e-12 * len(x)}
    found = optimize.minimize(
        cost, start, method="trust-exact", jac=gradient, hess=curvature, options=options
    )
    solution: Vector = found.x
    return solution
