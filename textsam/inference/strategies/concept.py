"""`strategy="concept"`: a model that finds every instance of a concept by itself (SAM 3).

Its masks, scores and presence are taken as they are; examples in the same photo are its box
prompts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from textsam.inference.photo.encoded import EncodedPhoto
from textsam.inference.photo.prediction import stability_score
from textsam.inference.strategies.competition import cut_rivals, log_odds
from textsam.inference.strategies.like import UNNAMED
from textsam.modeling.huggingface.sam3 import Instances
from textsam.results.mask_result import MaskResult
from textsam.values.judge import (
    Candidate,
    Curve,
    Gate,
    PhraseAnswer,
    StrategyCurves,
    Threshold,
    judge,
    threshold_of,
)
from textsam.values.rle import encode_masks, rle_area

# The model's own probabilities, at the threshold of its released code.
CONCEPT_CURVES = StrategyCurves(
    presence=Curve(weights={"presence": 1.0}, bias=0.0),
    score=Curve(weights={"score": 1.0}, bias=0.0),
    min_presence=0.5,
    min_score=0.5,
)
_MAX_DROPPED = 8  # dropped masks that an answer keeps
_BATCH = 16  # masks brought to the photo's size at once


def concept_answers(
    photo: EncodedPhoto,
    phrases: Sequence[str],
    *,
    # Minimum presence and score, for all or by phrase; the curves' own levels by default.
    threshold: Threshold,
    exclude: Sequence[str] = (),
    background: Sequence[str] = (),
) -> list[PhraseAnswer]:
    """Every instance of each phrase, with the rivals that `exclude` and `background` name.

    Raises:
        WeightsError: The model has no concept model.
    """
    model = photo.parts.require_concept()
    found = {
        phrase: _answer(
            photo,
            phrase,
            model.find(photo.concept_features, phrase),
            threshold_of(threshold, phrase),
        )
        for phrase in dict.fromkeys([*phrases, *exclude, *background])
    }
    rivals: list[tuple[Gate, Candidate]] = []
    for gate, names in (("exclusion", exclude), ("background", background)):
        rivals += [(gate, item) for name in names for item in found[name].kept]  # type: ignore[misc]
    return cut_rivals([found[phrase] for phrase in phrases], rivals)


def concept_like(
    photo: EncodedPhoto,
    examples: Sequence[MaskResult],  # of this photo
    unlike: Sequence[MaskResult] = (),  # what is not meant, of this photo
    *,
    threshold: float | None,
) -> PhraseAnswer:
    """Every instance of what the boxes of examples show, the examples included.

    The boxes of `unlike` have SAM 3's label for what is not meant.
    """
    model = photo.parts.require_concept()
    height, width = photo.size
    boxes = np.stack([item.box for item in (*examples, *unlike)])
    labels = [1] * len(examples) + [0] * len(unlike)
    shares = (boxes / [width, height, width, height]).astype(np.float32)
    name = next((item.label for item in examples if item.label is not None), UNNAMED)
    found = model.find(photo.concept_features, boxes=shares, labels=labels)
    return _answer(photo, name, found, threshold)


def _answer(
    photo: EncodedPhoto, name: str, found: Instances, threshold: float | None
) -> PhraseAnswer:
    """The judged answer of what was found, best score first."""
    curves = photo.parts.calibration.strategies.get("concept", CONCEPT_CURVES)
    curves = photo.parts.own_levels(curves, name)
    levels = curves.levels(threshold)
    evidence = {"presence": log_odds(found.presence)}
    answer = judge(
        PhraseAnswer(
            phrase=name,
            strategy="concept",
            presence=curves.presence.probability(evidence),
            evidence=evidence,
            levels=levels,
            similarity=found.similarity,
        )
    )
    if answer.gate is not None:
        return answer
    odds = [log_odds(float(score)) for score in found.scores]
    scores = [curves.score.probability({"score": value}) for value in odds]
    order = [int(i) for i in np.argsort(-np.array(scores), kind="stable")]
    passed = sum(score >= levels.min_score for score in scores)
    shown, left_out = order[: passed + _MAX_DROPPED], order[passed + _MAX_DROPPED :]
    candidates: list[Candidate] = []
    for start in range(0, len(shown), _BATCH):
        rows = shown[start : start + _BATCH]
        candidates += _candidates(
            photo, found.logits[rows], [scores[i] for i in rows], [odds[i] for i in rows]
        )
    return judge(
        replace(
            answer,
            candidates=tuple(candidates),
            searched=True,
            forgotten=max((scores[i] for i in left_out), default=-math.inf),
        )
    )


def _candidates(
    photo: EncodedPhoto, logits: Tensor, scores: Sequence[float], odds: Sequence[float]
) -> list[Candidate]:
    """Masks of logits (k, n, n), those that are not empty."""
    # Probabilities, not logits, are resized, as in the model's own post-processing.
    full = F.interpolate(logits.sigmoid()[None], photo.size, mode="bilinear", align_corners=False)[
        0
    ]
    rles = encode_masks((full > 0.5).numpy())
    stable = stability_score(logits)
    grids: Sequence[Tensor | None] = [None] * len(logits)
    if photo.frame.stretched:  # the core's frame, so that a click continues from these logits
        size = photo.parts.sam.config.mask_size
        grids = list(
            F.interpolate(logits[None], (size, size), mode="bilinear", align_corners=False)[0]
        )
    return [
        Candidate(
            rle=rle,
            score=score,
            stability=float(stable[k]),
            evidence={"score": odd},
            low_res=None if grid is None else grid.to(torch.float16).numpy(),
        )
        for k, (rle, score, odd, grid) in enumerate(zip(rles, scores, odds, grids, strict=True))
        if rle_area(rle)
    ]
