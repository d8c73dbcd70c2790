"""`auto`: text finds, points separate.

The pathway's map of a phrase has regions, and points in them; `separate` asks the decoder whether a
region is one thing or several. What comes out is ordered by predicted IoU times the mean
probability of the map inside; a mask that better ones cover is dropped. Whether the phrase is there
at all, and whether it describes a mask, is decided by probabilities of the model's calibration.

What is not wanted (`exclude`, `background`) competes with the phrase at each place: where the
other's log odds are higher, the phrase's probability falls.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textsam.inference.photo.encoded import EncodedPhoto
from textsam.inference.photo.phrase_map import map_logits, phrase_tokens, to_mask_prompts
from textsam.inference.photo.postprocess import to_original_frame
from textsam.inference.strategies.regions import (
    PhraseMap,
    Proposal,
    decode_regions,
    find_regions,
    tidied,
)
from textsam.values.calibration import Curve, StrategyCurves
from textsam.values.candidates import Candidate, Gate, Levels, MaskNumbers, PhraseAnswer
from textsam.values.judge import best_first, find_repeats, judge, judge_mask
from textsam.values.rle import encode_masks, rle_area
from textsam.weights.parts import ModelParts

__all__ = [
    "DEFAULT_CURVES",
    "curves_of",
    "instances_of",
    "look",
    "map_levels",
    "mask_evidence",
    "peak_of",
    "propose",
]

# Without a calibration the map is taken at its word.
DEFAULT_CURVES = StrategyCurves(
    presence=Curve(weights={"peak": 1.0}, bias=0.0),
    score=Curve(weights={"map": 1.0}, bias=0.0),
    min_presence=0.6,
    min_score=0.5,
)
_ANY = Curve(weights={}, bias=0.0)  # for what is not scored
_PEAK_CELLS = 8  # as in the words' loss of training
_RUNNERS_UP = 3  # duplicates that an answer remembers
_LIMIT = 30.0  # of log odds


@dataclass(frozen=True, kw_only=True, eq=False)
class _Map:
    """The map of a phrase after what is not wanted has competed.

    Attributes:
        own: (m, m) log odds on the grid of mask prompts, as they were.
        fair: (m, m) log odds after the competition.
        rival: (m, m) log odds of the strongest excluded phrase; None without any.
        similarity: (h, w) probability on a grid that covers the photo.
        peak: Log odds of the best places as they were.
        unexcluded: The same after `exclude` has competed.
        left: The same after all have.
    """

    own: Tensor
    fair: Tensor
    rival: Tensor | None
    similarity: NDArray[np.float32]
    peak: float
    unexcluded: float
    left: float


def instances_of(
    photo: EncodedPhoto,
    embedding: Tensor,
    name: str,
    *,
    curves: StrategyCurves = DEFAULT_CURVES,
    threshold: float | None = None,
    exclude: Tensor | None = None,
    background: Tensor | None = None,
) -> PhraseAnswer:
    """Every instance of what an embedding means.

    Args:
        photo: The photo; its model has a dense text head.
        embedding: (D,) unit, centred by the pathway for its modality.
        name: Label of the masks.
        curves: Probabilities from the evidence "peak" (presence; log odds of the map's best
            places) and "map", "peak" (score; log odds of the mean probability inside a mask, and of
            its best place).
        threshold: Least presence and least score; the curves' own levels by default.
        exclude: (E, D) embeddings, E > 0, that the phrase competes with; their pixels are cut from
            masks.
        background: (B, D) embeddings, B > 0, that it competes with.
    """
    field = _map(photo, embedding, exclude, background)
    levels = map_levels(photo, curves, threshold)
    answer = judge(_seen(field, name, curves=curves, levels=levels))
    if answer.gate is not None:
        return answer
    decoded = _decode(photo, embedding, field, levels=levels)
    candidates = _candidates(photo, decoded, field, score=curves.score, levels=levels)
    return best_first(judge(replace(answer, candidates=candidates, searched=True)))


def propose(
    photo: EncodedPhoto, embedding: Tensor, name: str, *, threshold: float | None
) -> PhraseAnswer:
    """The masks of an embedding's map without scores and without a verdict.

    Presence is unknown, and no level but those of quality and of places is set.
    """
    field = _map(photo, embedding, None, None)
    unknown = StrategyCurves(presence=_ANY, score=_ANY, min_presence=0.0, min_score=0.0)
    levels = map_levels(photo, unknown, threshold)
    answer = _seen(field, name, curves=unknown, levels=levels)
    decoded = _decode(photo, embedding, field, levels=levels)
    candidates = _candidates(photo, decoded, field, score=None, levels=levels)
    return replace(answer, presence=math.nan, rivaled={}, candidates=candidates, searched=True)


def map_levels(photo: EncodedPhoto, curves: StrategyCurves, threshold: float | None) -> Levels:
    """The levels of a strategy that works from the map, those of the photo's model."""
    settings = photo.parts.text_settings
    return Levels(
        presence=curves.min_presence,
        score=curves.min_score,
        quality=settings.min_quality,
        place=settings.threshold,
        threshold=threshold,
    )


def curves_of(parts: ModelParts) -> StrategyCurves:
    """The model's calibration of `auto`, or the map's own probabilities without one."""
    return parts.calibration.strategies.get("auto", DEFAULT_CURVES)


def look(
    photo: EncodedPhoto, embedding: Tensor, name: str, *, curves: StrategyCurves
) -> PhraseAnswer:
    """Presence, its evidence and the similarity map of an embedding (D,); no candidates."""
    return _seen(_map(photo, embedding, None, None), name, curves=curves, levels=Levels())


def peak_of(photo: EncodedPhoto, logits: Tensor) -> float:
    """The evidence of presence in a map (h8, w8) of `map_logits`: log odds of its best places."""
    rows, columns = _covered(photo, logits.shape[-1])
    return _peak(logits[:rows, :columns])


def mask_evidence(mean: float, best: float) -> dict[str, float]:
    """Evidence of a mask in which a map has this mean and this highest probability."""
    return {"map": _logit(mean), "peak": _logit(best)}


def _seen(field: _Map, name: str, *, curves: StrategyCurves, levels: Levels) -> PhraseAnswer:
    evidence = {"peak": field.peak}
    rivaled: dict[Gate, float] = {"exclusion": field.unexcluded, "background": field.left}
    return PhraseAnswer(
        phrase=name,
        strategy="auto",
        presence=curves.presence.probability(evidence),
        evidence=evidence,
        rivaled={gate: curves.presence.probability({"peak": p}) for gate, p in rivaled.items()},
        best_place=float(field.fair.max().sigmoid()),
        levels=levels,
        similarity=field.similarity,
    )


def _map(
    photo: EncodedPhoto, embedding: Tensor, exclude: Tensor | None, background: Tensor | None
) -> _Map:
    rivals = [part for part in (exclude, background) if part is not None]
    maps = map_logits(photo, torch.cat([embedding[None], *rivals]))
    rows, columns = _covered(photo, maps.shape[-1])
    own = unexcluded = fair = maps[0]
    rival = None
    if exclude is not None:
        excluded = maps[1 : 1 + len(exclude)].amax(0)
        rival = to_mask_prompts(photo, excluded[None])[0, 0]
        unexcluded = _competed(own, excluded)
    if rivals:
        fair = _competed(own, maps[1:].amax(0))
    grid = to_mask_prompts(photo, torch.stack([own, fair]))[:, 0]
    return _Map(
        own=grid[0],
        fair=grid[1],
        rival=rival,
        similarity=fair[:rows, :columns].sigmoid().numpy(),
        peak=_peak(own[:rows, :columns]),
        unexcluded=_peak(unexcluded[:rows, :columns]),
        left=_peak(fair[:rows, :columns]),
    )


def _competed(own: Tensor, rival: Tensor) -> Tensor:
    """Log odds of "the phrase, and rather it than the rival": sigmoid(own) sigmoid(own - rival)."""
    chance = own.sigmoid() * (own - rival).sigmoid()
    return torch.logit(chance, eps=1e-6)


def _covered(photo: EncodedPhoto, size: int) -> tuple[int, int]:
    """Rows and columns of a padded square map that the photo covers."""
    frame = photo.text_frame
    height, width = frame.resized
    cell = frame.image_size / size
    return max(1, round(height / cell)), max(1, round(width / cell))


def _peak(logits: Tensor) -> float:
    """Soft maximum of the best cells, as the presence term of training has it."""
    best = logits.flatten().topk(min(_PEAK_CELLS, logits.numel())).values
    value = float(torch.logsumexp(best, dim=0) - math.log(len(best)))
    return max(-_LIMIT, min(_LIMIT, value))


def _decode(
    photo: EncodedPhoto, embedding: Tensor, field: _Map, *, levels: Levels
) -> list[Proposal]:
    """Masks of the map's regions, best quality first; none if no place reaches the level."""
    settings = photo.parts.text_settings
    probability = field.fair.sigmoid()
    rows, columns = _covered(photo, probability.shape[-1])
    inside = torch.zeros_like(probability)
    inside[:rows, :columns] = probability[:rows, :columns]
    regions = find_regions(inside, level=levels.place, settings=settings)
    if levels.min_place < levels.place:  # fainter ones, as far as they are elsewhere
        regions += find_regions(inside, level=levels.min_place, settings=settings, beside=regions)
    if not regions:
        return []
    token = phrase_tokens(photo.parts, embedding[None])
    phrase = PhraseMap(token=token, logits=field.fair, covered=(rows, columns))
    return decode_regions(photo, phrase, regions)


def _candidates(
    photo: EncodedPhoto,
    decoded: Sequence[Proposal],
    field: _Map,
    *,
    score: Curve | None,
    levels: Levels,
) -> tuple[Candidate, ...]:
    """Decoded masks with their numbers, best score first; of repeats the best few.

    Without a curve they are not scored, and stay in the order of their quality.
    """
    if not decoded:
        return ()
    settings = photo.parts.text_settings
    masks = np.stack([(item.logits > 0).numpy() for item in decoded])
    rejected = [item.rejected for item in decoded]
    repeats = find_repeats(masks, rejected, max_covered=settings.overlap)
    candidates = []
    for number, (item, repeat) in enumerate(zip(decoded, repeats, strict=True)):
        if repeat and sum(map(bool, repeats[:number])) >= _RUNNERS_UP:
            continue
        evidence = mask_evidence(item.mean, item.best)
        numbers = MaskNumbers(
            score=math.nan if score is None else score.probability(evidence),
            quality=item.quality,
            ruled_out=("duplicate", repeat) if repeat else None,
        )
        logits = item.logits
        if not repeat:
            hole = settings.max_hole_ratio
            logits = tidied(logits, item.region.cells, max_hole_ratio=hole)
        if field.rival is not None and not repeat:
            cut = (field.rival + settings.exclusion_margin > field.own) & (logits > 0)
            share = float(cut.sum()) / max(1, int((logits > 0).sum()))
            numbers = replace(numbers, excluded=share)
            if judge_mask(numbers, levels)[0] is None:  # a dropped mask is shown uncut
                logits = torch.where(cut, -logits.abs(), logits)
        candidate = _candidate(photo, item, logits, evidence, numbers)
        if rle_area(candidate.rle):
            candidates.append(candidate)
    return tuple(candidates if score is None else sorted(candidates, key=lambda c: -c.score))


def _candidate(
    photo: EncodedPhoto,
    item: Proposal,
    logits: Tensor,
    evidence: dict[str, float],
    numbers: MaskNumbers,
) -> Candidate:
    full = to_original_frame(logits[None], photo.frame)
    inner = int((full > 1).sum())
    outer = max(1, int((full > -1).sum()))
    x, y = photo.frame.points_to_original(np.array([item.point], np.float32))[0]
    return Candidate(
        **vars(numbers),
        rle=encode_masks((full > 0).numpy())[0],
        iou=item.iou,
        stability=inner / outer,
        evidence=evidence,
        point=(float(x), float(y)),
        low_res=logits.half().numpy(),
    )


def _logit(p: float) -> float:
    p = min(max(p, 1e-6), 1 - 1e-6)
    return math.log(p / (1 - p))
