"""`rank`: automatic masks, each scored by masked CLIP against the phrase.

Nothing is trained for it: any SAM proposes, any CLIP judges (the embedding of a mask is that of the
paper's text training, arXiv 2304.02643, Appendix D.5). Masks and their embeddings are made once per
view; a further phrase costs a product.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from textsam.inference.photo.encoded import EncodedPhoto
from textsam.results.segmentation import Segmentation
from textsam.values.calibration import Curve, StrategyCurves
from textsam.values.candidates import Candidate, Gate, Levels, PhraseAnswer
from textsam.values.judge import judge
from textsam.values.rle import decode_rles

__all__ = [
    "BACKGROUND",
    "BATCH",
    "RANK_CURVES",
    "EmbeddedMasks",
    "answer_from_masks",
    "embed_masks",
    "rank_answers",
]

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
_MAX_COVERED = 0.6  # share of a mask that better ones of the phrase may cover
_REMEMBERED = 8  # dropped masks of an answer
_LIMIT = 30.0


@dataclass(frozen=True, kw_only=True, eq=False)
class EmbeddedMasks:
    """Automatic masks of a photo, none of them empty.

    Attributes:
        masks: N masks.
        embeddings: (N, D) masked-CLIP embeddings of unit length; None for a model without CLIP.
    """

    masks: Segmentation
    embeddings: Tensor | None


@dataclass(frozen=True, kw_only=True, eq=False)
class _Rival:
    """Log odds of a phrase (N,) at N masks and of what it competes with (N, R).

    The first `excluded` of the R are not wanted, the others only in the way.
    """

    own: Tensor
    others: Tensor
    excluded: int

    def of(self, index: int) -> tuple[Gate, float, float]:
        """The gate of a mask's strongest competitor, the phrase's log odds and its."""
        best = int(self.others[index].argmax())
        gate: Gate = "exclusion" if best < self.excluded else "background"
        return gate, float(self.own[index]), float(self.others[index, best])


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
        rows.append(clip.encode_masks(photo.image, part, expand=_EXPAND).cpu())
    return EmbeddedMasks(masks=masks, embeddings=torch.cat(rows))


def rank_answers(
    photo: EncodedPhoto,
    embedded: EmbeddedMasks,
    phrases: Sequence[str],
    *,
    curves: StrategyCurves | None = None,
    threshold: float | None = None,
    exclude: Sequence[str] = (),
    background: Sequence[str] = (),
) -> list[PhraseAnswer]:
    """Score every automatic mask against every phrase.

    The evidence is "clip": `ClipEncoder.contrast`'s log odds that a mask shows the phrase, against
    `BACKGROUND`, `exclude` and `background`; of the best mask for presence.

    Args:
        photo: The photo.
        embedded: Its automatic masks.
        phrases: What to look for.
        curves: Probabilities from the evidence; the tower's own without.
        threshold: Least presence and least score; the curves' own levels by default.
        exclude: A mask that one of these fits better is dropped, gate "exclusion".
        background: Likewise, gate "background".

    Raises:
        WeightsError: The model has no CLIP.
    """
    clip = photo.parts.require_clip()
    assert embedded.embeddings is not None  # the model has a CLIP
    curves = RANK_CURVES if curves is None else curves
    rivals = [*exclude, *background]
    texts = clip.encode_text([*phrases, *rivals])
    others = clip.encode_text([*BACKGROUND])
    odds = clip.contrast(embedded.embeddings, texts, others).cpu().clamp(-_LIMIT, _LIMIT)
    best = odds[:, len(phrases) :]
    results = []
    for number, phrase in enumerate(phrases):
        evidence = [{"clip": float(value)} for value in odds[:, number]]
        rival = _Rival(own=odds[:, number], others=best, excluded=len(exclude)) if rivals else None
        top = {"clip": float(odds[:, number].max())} if evidence else {}
        results.append(
            answer_from_masks(
                phrase,
                "rank",
                embedded.masks,
                evidence,
                top,
                curves=curves,
                threshold=threshold,
                rival=rival,
            )
        )
    return results


def answer_from_masks(
    name: str,
    strategy: str,
    masks: Segmentation,
    evidence: Sequence[Mapping[str, float]],
    best: Mapping[str, float],
    *,
    curves: StrategyCurves,
    threshold: float | None,
    rival: _Rival | None = None,
) -> PhraseAnswer:
    """The answer with automatic masks as candidates, best score first.

    Args:
        name: What was asked for.
        strategy: Written into the answer.
        masks: N masks, none of them empty.
        evidence: Of each mask.
        best: The evidence of presence; not looked at where there are no masks.
        curves: Probabilities and levels.
        threshold: Least presence and least score; the curves' own levels by default.
        rival: What else the masks may show.
    """
    levels = Levels(
        presence=curves.min_presence,
        score=curves.min_score,
        max_covered=_MAX_COVERED,
        threshold=threshold,
    )
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
            rival=None if rival is None else rival.of(index),
            iou=float(masks.iou[index]),
            stability=float(masks.stability[index]),
            evidence=evidence[index],
        )
        for index in map(int, np.argsort(-scores, kind="stable"))
    ]
    return _shortened(judge(replace(answer, candidates=tuple(candidates), searched=True)))


def _shortened(answer: PhraseAnswer) -> PhraseAnswer:
    """The answer with the masks of the result and the best of the dropped ones."""
    dropped = [item for item in answer.candidates if item.gate is not None]
    forgotten = dropped[_REMEMBERED:]
    places = set(map(id, forgotten))
    return replace(
        answer,
        candidates=tuple(item for item in answer.candidates if id(item) not in places),
        # No threshold brings a mask back that another gate dropped.
        forgotten=max((c.score for c in forgotten if c.gate == "score"), default=-math.inf),
    )
