"""`rank`: automatic masks, each scored by masked CLIP against the phrase.

Nothing is trained for it: any SAM proposes, any CLIP judges (the embedding of a mask is that of the
paper's text training, arXiv 2304.02643, Appendix D.5). Masks and their embeddings are made once per
view; a further phrase costs a product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from textsam.answers import Candidate, Gate, PhraseAnswer
from textsam.calibration import Curve, StrategyCurves
from textsam.inference.automatic import AutomaticSettings
from textsam.inference.language import require_clip
from textsam.rle import decode_rles, rle_areas, rle_common_areas
from textsam.segmentation import Segmentation

if TYPE_CHECKING:
    from textsam.inference.view import ImageView

__all__ = ["BACKGROUND", "RANK_CURVES", "rank_answers", "ranked_masks"]

# What else a mask may show; a tower trained with a softmax knows a phrase only beside others.
BACKGROUND = (
    *("an object", "a thing", "a part of something", "a background", "a texture", "a shadow"),
    *("the ground", "the sky", "a wall", "plants"),
)
# Without a calibration the tower's own probability counts.
RANK_CURVES = StrategyCurves(
    presence=Curve(weights={"clip": 1.0}, bias=0.0),
    score=Curve(weights={"clip": 1.0}, bias=0.0),
)
_EXPAND = 1.5  # the middle of the paper's 1x to 2x (Appendix D.5)
_BATCH = 32  # masks that are decoded and cropped at once
_COVERED = 0.6  # share of a mask that better ones of the phrase cover
_REMEMBERED = 8  # dropped masks of an answer
_LIMIT = 30.0


@dataclass(frozen=True, kw_only=True, eq=False)
class RankedMasks:
    """Automatic masks of a photo and their masked-CLIP embeddings (N, D), unit length."""

    masks: Segmentation
    embeddings: Tensor


def ranked_masks(view: ImageView, settings: AutomaticSettings | None = None) -> RankedMasks:
    """The view's automatic masks with embeddings, made at the first call."""
    wanted = AutomaticSettings.fast() if settings is None else settings
    if wanted not in view.ranked:
        masks = view.everything(wanted)
        masks = masks[masks.areas > 0]
        clip = require_clip(view.model)
        rows = [torch.zeros(0, clip.width)]
        rles = masks.rles
        for start in range(0, len(rles), _BATCH):
            part = decode_rles(rles[start : start + _BATCH], view.size)
            rows.append(clip.encode_masks(view.image, part, expand=_EXPAND).cpu())
        view.ranked[wanted] = RankedMasks(masks=masks, embeddings=torch.cat(rows))
    return view.ranked[wanted]


def rank_answers(
    view: ImageView,
    phrases: Sequence[str],
    *,
    curves: StrategyCurves | None = None,
    threshold: float | None = None,
    exclude: Sequence[str] = (),
    background: Sequence[str] = (),
    settings: AutomaticSettings | None = None,
) -> list[PhraseAnswer]:
    """Score every automatic mask against every phrase.

    The evidence is "clip": `ClipEncoder.contrast`'s log odds that a mask shows the phrase, against
    `BACKGROUND`, `exclude` and `background`; of the best mask for presence.

    Args:
        view: The photo.
        phrases: What to look for.
        curves: Probabilities from the evidence; the tower's own without.
        threshold: Least presence and least score; the curves' own levels by default.
        exclude: A mask that one of these fits better is dropped, gate "exclusion".
        background: Likewise, gate "background".
        settings: Of the automatic masks; "fast" by default.

    Raises:
        WeightsError: The model has no CLIP.
    """
    clip = require_clip(view.model)
    ranked = ranked_masks(view, settings)
    curves = (RANK_CURVES if curves is None else curves).at(threshold)
    rivals = [*exclude, *background]
    texts = clip.encode_text([*phrases, *rivals])
    others = clip.encode_text([*BACKGROUND])
    odds = clip.contrast(ranked.embeddings, texts, others).cpu().clamp(-_LIMIT, _LIMIT)
    best = odds[:, len(phrases) :]
    results = []
    for number, phrase in enumerate(phrases):
        answer = _start(phrase, odds[:, number], curves=curves)
        if answer.gate is None:
            rival = (best, len(exclude)) if rivals else None
            answer = _judged(answer, ranked.masks, odds[:, number], rival, curves=curves)
        results.append(answer)
    return results


def _start(phrase: str, odds: Tensor, *, curves: StrategyCurves) -> PhraseAnswer:
    """Presence, before any mask is looked at."""
    answer = PhraseAnswer(
        phrase=phrase,
        strategy="rank",
        least_presence=curves.least_presence,
        least_score=curves.least_score,
    )
    if not len(odds):
        return replace(answer, presence=0.0, gate="map", reason="there are no automatic masks")
    evidence = {"clip": float(odds.max())}
    presence = curves.presence.probability(evidence)
    answer = replace(answer, presence=presence, evidence=evidence)
    if presence < curves.least_presence:
        reason = f"presence {presence:.2f} < {curves.least_presence:.2f}"
        return replace(answer, gate="presence", reason=reason)
    return answer


def _judged(
    answer: PhraseAnswer,
    masks: Segmentation,
    odds: Tensor,
    rival: tuple[Tensor, int] | None,
    *,
    curves: StrategyCurves,
) -> PhraseAnswer:
    """Gates over the masks, by falling score."""
    scores = np.array([curves.score.probability({"clip": float(value)}) for value in odds])
    rles = masks.rles
    areas = rle_areas(rles)
    kept: list[int] = []
    candidates: list[Candidate] = []
    dropped = 0
    for index in np.argsort(-scores, kind="stable"):
        gate, reason = _gate(int(index), scores, odds, rival, answer)
        if gate is None and kept:
            common = rle_common_areas([rles[index]], [rles[k] for k in kept])[0]
            covers = float((common / areas[kept]).max())
            if max(float(common.sum() / areas[index]), covers) > _COVERED:
                gate, reason = "duplicate", "it shares most pixels with better masks"
        if gate is not None:
            dropped += 1
            if dropped > _REMEMBERED:
                continue
        else:
            kept.append(int(index))
        candidates.append(
            Candidate(
                rle=rles[index],
                score=float(scores[index]),
                iou=float(masks.iou[index]),
                stability=float(masks.stability[index]),
                evidence={"clip": float(odds[index])},
                gate=gate,
                reason=reason,
            )
        )
    if not kept:
        first = candidates[0]
        return replace(answer, candidates=tuple(candidates), gate=first.gate, reason=first.reason)
    return replace(answer, candidates=tuple(candidates))


def _gate(
    index: int,
    scores: np.ndarray,
    odds: Tensor,
    rival: tuple[Tensor, int] | None,
    answer: PhraseAnswer,
) -> tuple[Gate | None, str]:
    if rival is not None:
        values, excluded = rival
        best = int(values[index].argmax())
        if float(values[index, best]) > float(odds[index]):
            gate: Gate = "exclusion" if best < excluded else "background"
            return gate, f"log odds {float(odds[index]):.1f} < {float(values[index, best]):.1f}"
    score = float(scores[index])
    if math.isnan(score) or score < answer.least_score:
        return "score", f"score {score:.2f} < {answer.least_score:.2f}"
    return None, ""
