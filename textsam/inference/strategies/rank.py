"""`strategy="rank"`: automatic masks, each scored by masked CLIP against the phrase.

It needs no training: any SAM proposes, any CLIP scores, with the mask embedding of the paper's text
training (arXiv 2304.02643, Appendix D.5). A further phrase on the same masks costs one product.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textsam.inference.photo.encoded import EncodedPhoto
from textsam.results.segmentation import Segmentation
from textsam.values.judge import (
    Candidate,
    Curve,
    Gate,
    PhraseAnswer,
    Rival,
    StrategyCurves,
    Threshold,
    judge,
    threshold_of,
)
from textsam.values.rle import decode_rle, decode_rles, rle_boxes
from textsam.values.rle_ops import crop_rle
from textsam.weights.parts import ModelParts

# What else a mask may show: a CLIP trained with a softmax scores a phrase only against others.
BACKGROUND = (
    *("an object", "a thing", "a part of something", "a background", "a texture", "a shadow"),
    *("the ground", "the sky", "a wall", "plants"),
)
# Without a calibration CLIP's own probability counts.
RANK_CURVES = StrategyCurves(
    presence=Curve(weights={"clip": 1.0}, bias=0.0),
    score=Curve(weights={"clip": 1.0}, bias=0.0),
)
_CROP = 1.5  # side of a crop by the mask's box; the paper takes 1x to 2x (Appendix D.5)
_CUT_SIDE = 1024  # pixels; a longer cut of a big photo is read in steps of 2, 3, ...
BATCH = 32  # masks decoded and cropped at once
_MAX_COVERED = 0.6  # share of a mask that better ones of the phrase may cover
_MAX_DROPPED = 8  # dropped masks that an answer keeps
_MAX_LOG_ODDS = 30.0


@dataclass(frozen=True, kw_only=True, eq=False)
class EmbeddedMasks:
    """Automatic masks of a photo, none of them empty."""

    masks: Segmentation  # N masks
    # (N, D) masked-CLIP embeddings of unit length; None for a model without CLIP.
    embeddings: Tensor | None


def embed_masks(photo: EncodedPhoto, masks: Segmentation) -> EmbeddedMasks:
    """Embed the masks of a photo that are not empty by masked CLIP, if the model has a CLIP."""
    masks = masks[masks.areas > 0]
    clip = photo.parts.clip
    if clip is None:
        return EmbeddedMasks(masks=masks, embeddings=None)
    rows = [torch.zeros(0, clip.width)]
    rles = masks.rles
    for start in range(0, len(rles), BATCH):
        part = decode_rles(rles[start : start + BATCH], photo.size)
        rows.append(clip.encode_masks(photo.image, part, expand=_CROP).cpu())
    return EmbeddedMasks(masks=masks, embeddings=torch.cat(rows))


def embed_cut(parts: ModelParts, image: NDArray[np.uint8], masks: Segmentation) -> EmbeddedMasks:
    """As `embed_masks`, of a big photo that is not encoded: only what is around a mask is read."""
    clip = parts.require_clip()
    masks = masks[masks.areas > 0]
    rows = [torch.zeros(0, clip.width)]
    for rle, box in zip(masks.rles, rle_boxes(masks.rles).tolist(), strict=True):
        x0, y0, x1, y1 = box
        side = math.ceil(_CROP * max(x1 - x0, y1 - y0)) + 1
        left, top = (max(0, (a + b - side) // 2) for a, b in ((x0, x1), (y0, y1)))
        right = min(masks.size[1], (x0 + x1 + side) // 2 + 1)
        bottom = min(masks.size[0], (y0 + y1 + side) // 2 + 1)
        mask = decode_rle(crop_rle(rle, (left, top, right, bottom)))
        step = max(1, side // _CUT_SIDE)
        if mask[::step, ::step].any():
            mask = mask[::step, ::step]
        else:  # a line thinner than the step
            step = 1
        part = np.ascontiguousarray(image[top:bottom:step, left:right:step])
        rows.append(clip.encode_masks(part, mask, expand=_CROP).cpu())
    return EmbeddedMasks(masks=masks, embeddings=torch.cat(rows))


def rank_answers(
    photo: EncodedPhoto,
    embedded: EmbeddedMasks,
    phrases: Sequence[str],
    *,
    curves: StrategyCurves | None = None,  # probabilities from the evidence; CLIP's own by default
    # Minimum presence and score, for all or by phrase; the curves' own levels by default.
    threshold: Threshold = None,
    # Phrases; a mask that one of them describes better is dropped, gate "exclusion".
    exclude: Sequence[str] = (),
    background: Sequence[str] = (),  # the same, gate "background"
) -> list[PhraseAnswer]:
    """Score every automatic mask against every phrase.

    The evidence is "clip": `ClipEncoder.contrast`'s log odds that a mask shows the phrase, against
    `BACKGROUND`, `exclude` and `background`; of the best mask for presence.

    Raises:
        WeightsError: The model has no CLIP.
    """
    clip = photo.parts.require_clip()
    assert embedded.embeddings is not None  # the model has a CLIP
    curves = RANK_CURVES if curves is None else curves
    rivals = [*exclude, *background]
    texts = clip.encode_text([*phrases, *rivals])
    others = clip.encode_text([*BACKGROUND], plain=False)
    odds = (
        clip.contrast(embedded.embeddings, texts, others).cpu().clamp(-_MAX_LOG_ODDS, _MAX_LOG_ODDS)
    )
    best = odds[:, len(phrases) :]
    results = []
    for number, phrase in enumerate(phrases):
        evidence = [{"clip": float(value)} for value in odds[:, number]]
        top = {"clip": float(odds[:, number].max())} if evidence else {}
        results.append(
            answer_from_masks(
                phrase,
                "rank",
                embedded.masks,
                evidence,
                top,
                curves=photo.parts.own_levels(curves, phrase),
                threshold=threshold_of(threshold, phrase),
                rivals=_rivals(odds[:, number], best, excluded=len(exclude)),
            )
        )
    return results


def _rivals(own: Tensor, others: Tensor, *, excluded: int) -> list[Rival | None]:
    """For each of N masks its strongest rival.

    Log odds (N,) of a phrase and (N, R) of its rivals, of which the first are excluded phrases and
    the others background.
    """
    if not others.shape[1]:
        return [None] * len(own)
    values, places = others.max(1)
    gates: list[Gate] = ["exclusion" if k < excluded else "background" for k in places.tolist()]
    return list(zip(gates, own.tolist(), values.tolist(), strict=True))


def answer_from_masks(
    name: str,  # the phrase, or the name of the concept
    strategy: str,
    masks: Segmentation,  # N masks, none of them empty
    evidence: Sequence[Mapping[str, float]],
    best: Mapping[str, float],  # evidence of presence; not used without masks
    *,
    curves: StrategyCurves,
    threshold: float | None,  # minimum presence and score; the curves' own levels by default
    rivals: Sequence[Rival | None],  # (N,) what competes for each mask
) -> PhraseAnswer:
    """The answer with automatic masks as candidates, best score first."""
    levels = curves.levels(threshold, max_covered=_MAX_COVERED)
    if not len(masks):
        nothing = PhraseAnswer(phrase=name, strategy=strategy, levels=levels, searched=True)
        return replace(judge(nothing), presence=0.0)
    answer = judge(
        PhraseAnswer(
            phrase=name,
            strategy=strategy,
            presence=curves.presence.probability(best),
            evidence=best,
            levels=levels,
        )
    )
    if answer.gate is not None:
        return answer
    scores = np.array([curves.score.probability(item) for item in evidence])
    candidates = [
        Candidate(
            rle=masks.rles[index],
            score=float(scores[index]),
            rival=rivals[index],
            iou=float(masks.iou[index]),
            stability=float(masks.stability[index]),
            evidence=evidence[index],
        )
        for index in map(int, np.argsort(-scores, kind="stable"))
    ]
    return without_worst(judge(replace(answer, candidates=tuple(candidates), searched=True)))


def without_worst(answer: PhraseAnswer) -> PhraseAnswer:
    """The answer with the masks of the result and the best of the dropped ones."""
    dropped = [item for item in answer.candidates if item.gate is not None]
    forgotten = dropped[_MAX_DROPPED:]
    places = set(map(id, forgotten))
    return replace(
        answer,
        candidates=tuple(item for item in answer.candidates if id(item) not in places),
        # No threshold brings a mask back that another gate dropped.
        forgotten=max((c.score for c in forgotten if c.gate == "score"), default=-math.inf),
    )
