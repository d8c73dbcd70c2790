"""`everything(names=[...])`: each automatic mask gets the name that fits it best, or none.

Names compete with each other and with `BACKGROUND` for each mask, as in CLIP's own classifier
(arXiv 2103.00020, Section 3.1.2). The evidence of a mask's best name, and of a name's presence, is
"clip": its log odds against all others, by masked CLIP (arXiv 2304.02643, Appendix D.5). Only the
best name of a mask is a candidate; it is dropped where the calibration finds it too improbable.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from textsam.inference.strategies.query import Query, make_query
from textsam.inference.strategies.rank import BACKGROUND, EmbeddedMasks, without_worst
from textsam.results.segmentation import Segmentation
from textsam.values.judge import (
    Candidate,
    Curve,
    PhraseAnswer,
    StrategyCurves,
    Threshold,
    judge,
    threshold_of,
)
from textsam.values.prompts import normalize_phrases
from textsam.weights.parts import ModelParts

# Without a calibration the share of the softmax counts.
NAMING_CURVES = StrategyCurves(
    presence=Curve(weights={"clip": 1.0}, bias=0.0),
    score=Curve(weights={"clip": 1.0}, bias=0.0),
)
_MAX_LOG_ODDS = 30.0


def naming_query(
    parts: ModelParts, names: str | Sequence[str], threshold: Threshold = None
) -> Query:
    """The names as the phrases of a query; before the masks, which take seconds.

    Raises:
        PromptError: Names that `segment` would not take as phrases, or a wrong threshold.
        WeightsError: The model has no CLIP.
    """
    parts.require_clip()
    phrases = normalize_phrases(names, "names")
    return make_query(text=phrases, threshold=threshold).settled(parts)


def name_masks(parts: ModelParts, embedded: EmbeddedMasks, query: Query) -> Segmentation:
    """The masks in their order, each with its best name and score, or None and NaN.

    The names are the phrases of a query, whose threshold is settled.

    Raises:
        WeightsError: The model has no CLIP.
    """
    answers, best = _answers(parts, embedded, query.phrases, query.threshold)
    masks = embedded.masks
    labels: list[str | None] = [None] * len(masks)
    scores = np.full(len(masks), np.nan)
    for answer in answers:
        kept = {id(candidate.rle) for candidate in answer.kept}
        for index, candidate in best.get(answer.phrase, []):
            if id(candidate.rle) in kept:
                labels[index], scores[index] = answer.phrase, candidate.score
    return Segmentation(
        masks.size,
        masks.rles,
        labels=labels,
        scores=scores,
        iou=masks.iou,
        stability=masks.stability,
        presence={answer.phrase: answer.presence for answer in answers},
        image=masks.photo,
        answers=answers,
    )


def name_evidence(parts: ModelParts, embeddings: Tensor, names: Sequence[str]) -> Tensor:
    """Log odds (N, K) that each of N masks shows each of K names and nothing else."""
    clip = parts.require_clip()
    texts = torch.cat([clip.encode_text(names), clip.encode_text([*BACKGROUND], plain=False)])
    logits = clip.logits(embeddings.to(clip.device), texts).float().cpu()
    if clip.is_pairwise:  # a pair's own log odds; names compete by being the best
        return logits[:, : len(names)].clamp(-_MAX_LOG_ODDS, _MAX_LOG_ODDS)
    shares = logits.log_softmax(1)[:, : len(names)].double()
    # log p - log (1 - p), which is exact also where p is all but 1.
    odds = shares - torch.log(-torch.expm1(shares.clamp_max(-1e-12)))
    return odds.float().clamp(-_MAX_LOG_ODDS, _MAX_LOG_ODDS)


def _answers(
    parts: ModelParts, embedded: EmbeddedMasks, names: Sequence[str], threshold: Threshold
) -> tuple[list[PhraseAnswer], dict[str, list[tuple[int, Candidate]]]]:
    """An answer for each name, and by name the masks that it is the best name of."""
    parts.require_clip()
    assert embedded.embeddings is not None  # the model has a CLIP
    odds = name_evidence(parts, embedded.embeddings, names)
    best = odds.argmax(1).tolist() if len(odds) else []
    common = parts.calibration.strategies.get("everything", NAMING_CURVES)
    answers: list[PhraseAnswer] = []
    owned: dict[str, list[tuple[int, Candidate]]] = {}
    for column, name in enumerate(names):
        curves = parts.own_levels(common, name)
        rows = [index for index, own in enumerate(best) if own == column]
        items = [
            (index, _candidate(embedded.masks, index, float(odds[index, column]), curves))
            for index in rows
        ]
        owned[name] = items = sorted(items, key=lambda item: -item[1].score)
        evidence = {"clip": float(odds[:, column].max())} if len(odds) else {}
        answer = PhraseAnswer(
            phrase=name,
            strategy="everything",
            presence=curves.presence.probability(evidence) if evidence else 0.0,
            evidence=evidence,
            levels=curves.levels(threshold_of(threshold, name)),
            candidates=tuple(candidate for _, candidate in items),
            searched=True,
        )
        answers.append(without_worst(judge(answer)))
    return answers, owned


def _candidate(masks: Segmentation, index: int, odds: float, curves: StrategyCurves) -> Candidate:
    evidence = {"clip": odds}
    return Candidate(
        rle=masks.rles[index],
        score=curves.score.probability(evidence),
        iou=float(masks.iou[index]),
        stability=float(masks.stability[index]),
        evidence=evidence,
    )
