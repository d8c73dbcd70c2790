"""`strategy="auto"`: the map of a phrase finds, points in it separate the instances.

The regions of the map and the points in them become masks (`regions`), ordered by predicted IoU x
mean probability of the map inside. The model's calibration turns the map's log odds into the
probability that the phrase is in the photo, and that it describes a mask.

Excluded and background phrases compete with the phrase in each cell: where their log odds are
higher, the phrase's probability falls.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textsam.inference.photo.encoded import (
    EncodedPhoto,
    map_logits,
    phrase_tokens,
    to_mask_prompts,
    to_original_frame,
)
from textsam.inference.photo.prediction import stability_score
from textsam.inference.strategies.regions import (
    PhraseMap,
    Proposal,
    decode_regions,
    find_regions,
    tidied,
)
from textsam.values.judge import (
    Candidate,
    Curve,
    Gate,
    Levels,
    MaskNumbers,
    PhraseAnswer,
    StrategyCurves,
    best_first,
    find_repeats,
    judge,
    judge_mask,
)
from textsam.values.rle import encode_masks, rle_area
from textsam.weights.parts import ModelParts

# Without a calibration the map's own probabilities count.
DEFAULT_CURVES = StrategyCurves(
    presence=Curve(weights={"peak": 1.0}, bias=0.0),
    score=Curve(weights={"map": 1.0}, bias=0.0),
    min_presence=0.6,
    min_score=0.5,
)
_UNSCORED = Curve(weights={}, bias=0.0)
_PEAK_CELLS = 8  # as in the presence term of the training loss
_MAX_REPEATS = 3  # duplicates that an answer keeps
_MAX_LOG_ODDS = 30.0


@dataclass(frozen=True, kw_only=True, eq=False)
class _ContestedMap:
    """The map of a phrase, before and after other phrases have competed with it."""

    own: Tensor  # (m, m) log odds on the grid of mask prompts, before
    left: Tensor  # (m, m) log odds after all have competed
    rival: Tensor | None  # (m, m) log odds of the strongest excluded phrase; None without any
    # (h, w) probability after all have competed, on a grid that covers the photo.
    similarity: NDArray[np.float32]
    own_peak: float  # log odds of the best cells, before
    unexcluded_peak: float  # the same after the excluded phrases have competed
    left_peak: float  # the same after all have


def instances_of(
    photo: EncodedPhoto,  # the photo; its model has a dense text head
    embedding: Tensor,  # (D,) unit, centred by the pathway for its modality
    name: str,
    *,
    # Probabilities from the evidence "peak" (presence; log odds of the map's best cells) and "map",
    # "peak" (score; log odds of the mean and the highest probability inside a mask).
    curves: StrategyCurves = DEFAULT_CURVES,
    threshold: float | None = None,  # minimum presence and score; the curves' own levels by default
    # (E, D) embeddings, E > 0, that compete and whose pixels are cut from masks.
    exclude: Tensor | None = None,
    background: Tensor | None = None,  # (B, D) embeddings, B > 0, that compete
) -> PhraseAnswer:
    """Every instance of what an embedding means."""
    contest = _contest(photo, embedding, exclude, background)
    levels = map_levels(photo, curves, threshold)
    answer = judge(_phrase_answer(contest, name, curves=curves, levels=levels))
    if answer.gate is not None:
        return answer
    proposals = _decode(photo, embedding, contest, levels=levels)
    candidates = _candidates(photo, proposals, contest, score=curves.score, levels=levels)
    return best_first(judge(replace(answer, candidates=candidates, searched=True)))


def propose(
    photo: EncodedPhoto, embedding: Tensor, name: str, *, threshold: float | None
) -> PhraseAnswer:
    """The masks of an embedding's map without scores, presence and verdict."""
    contest = _contest(photo, embedding, None, None)
    unscored = StrategyCurves(presence=_UNSCORED, score=_UNSCORED, min_presence=0.0, min_score=0.0)
    levels = map_levels(photo, unscored, threshold)
    answer = _phrase_answer(contest, name, curves=unscored, levels=levels)
    proposals = _decode(photo, embedding, contest, levels=levels)
    candidates = _candidates(photo, proposals, contest, score=None, levels=levels)
    return replace(answer, presence=math.nan, rivaled={}, candidates=candidates, searched=True)


def map_levels(photo: EncodedPhoto, curves: StrategyCurves, threshold: float | None) -> Levels:
    """The levels of a strategy that works from the map, for the photo's model."""
    settings = photo.parts.text_settings
    return curves.levels(threshold, quality=settings.min_quality, place=settings.threshold)


def curves_of(parts: ModelParts, phrase: str | None = None) -> StrategyCurves:
    """The model's calibration of `auto`, or the map's own probabilities without one.

    With the levels of a phrase that has its own.
    """
    curves = parts.calibration.strategies.get("auto", DEFAULT_CURVES)
    return curves if phrase is None else parts.own_levels(curves, phrase)


def look(
    photo: EncodedPhoto, embedding: Tensor, name: str, *, curves: StrategyCurves
) -> PhraseAnswer:
    """Presence, its evidence and the map of an embedding (D,), without candidates."""
    contest = _contest(photo, embedding, None, None)
    return _phrase_answer(contest, name, curves=curves, levels=Levels())


def peak_of(photo: EncodedPhoto, logits: Tensor) -> float:
    """The evidence of presence in a map (h8, w8) of `map_logits`: log odds of its best cells."""
    rows, columns = photo.text_frame.covered(logits.shape[-1])
    return _peak(logits[:rows, :columns])


def mask_evidence(mean: float, best: float) -> dict[str, float]:
    """Evidence of a mask in which a map has this mean and this highest probability."""
    limits = 1e-6, 1 - 1e-6
    mean, best = (min(max(p, limits[0]), limits[1]) for p in (mean, best))
    return {"map": math.log(mean / (1 - mean)), "peak": math.log(best / (1 - best))}


def _phrase_answer(
    contest: _ContestedMap, name: str, *, curves: StrategyCurves, levels: Levels
) -> PhraseAnswer:
    def presence(peak: float) -> float:
        return curves.presence.probability({"peak": peak})

    rivaled: dict[Gate, float] = {
        "exclusion": presence(contest.unexcluded_peak),
        "background": presence(contest.left_peak),
    }
    return PhraseAnswer(
        phrase=name,
        strategy="auto",
        presence=presence(contest.own_peak),
        evidence={"peak": contest.own_peak},
        rivaled=rivaled,
        best_place=float(contest.left.max().sigmoid()),
        levels=levels,
        similarity=contest.similarity,
    )


def _contest(
    photo: EncodedPhoto, embedding: Tensor, exclude: Tensor | None, background: Tensor | None
) -> _ContestedMap:
    rivals = [part for part in (exclude, background) if part is not None]
    maps = map_logits(photo, torch.cat([embedding[None], *rivals]))
    rows, columns = photo.text_frame.covered(maps.shape[-1])
    own = unexcluded = left = maps[0]
    rival = None
    if exclude is not None:
        excluded = maps[1 : 1 + len(exclude)].amax(0)
        rival = to_mask_prompts(photo, excluded[None])[0, 0]
        unexcluded = _competed(own, excluded)
    if rivals:
        left = _competed(own, maps[1:].amax(0))
    grid = to_mask_prompts(photo, torch.stack([own, left]))[:, 0]
    return _ContestedMap(
        own=grid[0],
        left=grid[1],
        rival=rival,
        similarity=left[:rows, :columns].sigmoid().numpy(),
        own_peak=_peak(own[:rows, :columns]),
        unexcluded_peak=_peak(unexcluded[:rows, :columns]),
        left_peak=_peak(left[:rows, :columns]),
    )


def _competed(own: Tensor, rival: Tensor) -> Tensor:
    """Log odds of "the phrase, and not the rival": sigmoid(own) sigmoid(own - rival)."""
    return torch.logit(own.sigmoid() * (own - rival).sigmoid(), eps=1e-6)


def _peak(logits: Tensor) -> float:
    """Soft maximum of the best cells: the log of the mean of their exponentials."""
    best = logits.flatten().topk(min(_PEAK_CELLS, logits.numel())).values
    value = float(torch.logsumexp(best, dim=0) - math.log(len(best)))
    return max(-_MAX_LOG_ODDS, min(_MAX_LOG_ODDS, value))


def _decode(
    photo: EncodedPhoto, embedding: Tensor, contest: _ContestedMap, *, levels: Levels
) -> list[Proposal]:
    """Masks of the map's regions, best quality first; none if no cell reaches the level."""
    settings = photo.parts.text_settings
    probability = contest.left.sigmoid()
    rows, columns = photo.frame.covered(probability.shape[-1])
    inside = torch.zeros_like(probability)
    inside[:rows, :columns] = probability[:rows, :columns]
    regions = find_regions(inside, level=levels.place, settings=settings)
    if levels.min_place < levels.place:  # a low threshold adds fainter regions elsewhere
        regions += find_regions(inside, level=levels.min_place, settings=settings, beside=regions)
    if not regions:
        return []
    token = phrase_tokens(photo.parts, embedding[None])
    phrase = PhraseMap(token=token, logits=contest.left, covered=(rows, columns))
    return decode_regions(photo, phrase, regions)


def _candidates(
    photo: EncodedPhoto,
    proposals: Sequence[Proposal],
    contest: _ContestedMap,
    *,
    score: Curve | None,
    levels: Levels,
) -> tuple[Candidate, ...]:
    """Decoded masks with their numbers, best score first; by quality without a curve."""
    if not proposals:
        return ()
    settings = photo.parts.text_settings
    masks = np.stack([(item.logits > 0).numpy() for item in proposals])
    rejected = [item.rejected for item in proposals]
    repeats = find_repeats(masks, rejected, max_covered=settings.overlap)
    candidates = []
    for number, (item, repeat) in enumerate(zip(proposals, repeats, strict=True)):
        if repeat and sum(map(bool, repeats[:number])) >= _MAX_REPEATS:
            continue
        evidence = mask_evidence(item.mean, item.best)
        numbers = MaskNumbers(
            score=math.nan if score is None else score.probability(evidence),
            quality=item.quality,
            ruled_out=("duplicate", repeat) if repeat else None,
        )
        logits = item.logits
        if not repeat:
            region = item.region.cells
            logits = tidied(logits, region, max_hole_ratio=settings.max_hole_ratio)
        if contest.rival is not None and not repeat:
            cut = (contest.rival + settings.exclusion_margin > contest.own) & (logits > 0)
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
    x, y = photo.frame.points_to_original(np.array([item.point], np.float32))[0]
    return Candidate(
        **vars(numbers),
        rle=encode_masks((full > 0).numpy())[0],
        iou=item.iou,
        stability=float(stability_score(full)[0]),
        evidence=evidence,
        point=(float(x), float(y)),
        low_res=logits.half().numpy(),
    )
