"""`rank`: automatic masks, each scored by masked CLIP against the phrase.

Nothing is trained for it: any SAM proposes, any CLIP judges (the embedding of a mask is that of the
paper's text training, arXiv 2304.02643, Appendix D.5). Masks and their embeddings are made once per
view; a further phrase costs a product.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from textsam.inference.photo.phrase_map import require_clip
from textsam.results.segmentation import Segmentation
from textsam.values.calibration import Curve, StrategyCurves
from textsam.values.candidates import Candidate, Gate, PhraseAnswer
from textsam.values.rle import decode_rles, rle_areas, rle_common_areas
from textsam.values.settings import AutomaticSettings

if TYPE_CHECKING:
    from textsam.inference.view import ImageView

__all__ = ["BACKGROUND", "BATCH", "RANK_CURVES", "judge_masks", "rank_answers", "ranked_masks"]

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
BATCH = 32  # masks that are decoded and cropped at once
_COVERED = 0.6  # share of a mask that better ones of the phrase cover
_REMEMBERED = 8  # dropped masks of an answer
_LIMIT = 30.0


@dataclass(frozen=True, kw_only=True, eq=False)
class RankedMasks:
    """Automatic masks of a photo and their masked-CLIP embeddings (N, D), unit length."""

    masks: Segmentation
    embeddings: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class _Rival:
    """Log odds of a phrase (N,) at N masks and of what it competes with (N, R).

    The first `excluded` of the R are not wanted, the others only in the way.
    """

    own: Tensor
    others: Tensor
    excluded: int


def ranked_masks(view: ImageView, settings: AutomaticSettings | None = None) -> RankedMasks:
    """The view's automatic masks with embeddings, made at the first call."""
    wanted = AutomaticSettings.fast() if settings is None else settings
    if wanted not in view.ranked:
        masks = view.everything(wanted)
        masks = masks[masks.areas > 0]
        clip = require_clip(view.model)
        rows = [torch.zeros(0, clip.width)]
        rles = masks.rles
        for start in range(0, len(rles), BATCH):
            part = decode_rles(rles[start : start + BATCH], view.size)
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
        evidence = [{"clip": float(value)} for value in odds[:, number]]
        rival = _Rival(own=odds[:, number], others=best, excluded=len(exclude)) if rivals else None
        top = {"clip": float(odds[:, number].max())} if evidence else {}
        results.append(
            judge_masks(phrase, "rank", ranked.masks, evidence, top, curves=curves, rival=rival)
        )
    return results


def judge_masks(
    name: str,
    strategy: str,
    masks: Segmentation,
    evidence: Sequence[Mapping[str, float]],
    best: Mapping[str, float],
    *,
    curves: StrategyCurves,
    rival: _Rival | None = None,
) -> PhraseAnswer:
    """Gates over automatic masks, by falling score.

    Args:
        name: What was asked for.
        strategy: Written into the answer.
        masks: N masks, none of them empty.
        evidence: Of each mask.
        best: The evidence of presence; not looked at where there are no masks.
        curves: Probabilities and levels.
        rival: What else the masks may show.
    """
    answer = PhraseAnswer(
        phrase=name,
        strategy=strategy,
        min_presence=curves.min_presence,
        min_score=curves.min_score,
    )
    if not len(masks):
        return replace(answer, presence=0.0, gate="map", reason="there are no automatic masks")
    presence = curves.presence.probability(best)
    answer = replace(answer, presence=presence, evidence=best)
    if presence < curves.min_presence:
        reason = f"presence {presence:.2f} < {curves.min_presence:.2f}"
        return replace(answer, gate="presence", reason=reason)
    return _judged(answer, masks, evidence, rival, curves=curves)


def _judged(
    answer: PhraseAnswer,
    masks: Segmentation,
    evidence: Sequence[Mapping[str, float]],
    rival: _Rival | None,
    *,
    curves: StrategyCurves,
) -> PhraseAnswer:
    scores = np.array([curves.score.probability(item) for item in evidence])
    rles = masks.rles
    areas = rle_areas(rles)
    kept: list[int] = []
    candidates: list[Candidate] = []
    dropped = 0
    for index in np.argsort(-scores, kind="stable"):
        gate, reason = _gate(int(index), float(scores[index]), rival, answer)
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
                evidence=evidence[index],
                gate=gate,
                reason=reason,
            )
        )
    if not kept:
        first = candidates[0]
        return replace(answer, candidates=tuple(candidates), gate=first.gate, reason=first.reason)
    return replace(answer, candidates=tuple(candidates))


def _gate(
    index: int, score: float, rival: _Rival | None, answer: PhraseAnswer
) -> tuple[Gate | None, str]:
    if rival is not None:
        best = int(rival.others[index].argmax())
        own, other = float(rival.own[index]), float(rival.others[index, best])
        if other > own:
            gate: Gate = "exclusion" if best < rival.excluded else "background"
            return gate, f"log odds {own:.1f} < {other:.1f}"
    if math.isnan(score) or score < answer.min_score:
        return "score", f"score {score:.2f} < {answer.min_score:.2f}"
    return None, ""
