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
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textsam.inference.photo.phrase_map import (
    dense_frame,
    map_logits,
    require_text,
    to_mask_prompts,
)
from textsam.inference.photo.postprocess import to_original_frame
from textsam.inference.strategies.regions import find_regions, tidied
from textsam.inference.strategies.separate import Proposal, separate
from textsam.values.calibration import Curve, StrategyCurves
from textsam.values.candidates import Candidate, Gate, PhraseAnswer
from textsam.values.rle import encode_masks, rle_area

if TYPE_CHECKING:
    from textsam.inference.view import ImageView

__all__ = ["DEFAULT_CURVES", "instances_of", "look", "mask_evidence", "peak_of"]

# Without a calibration the map is taken at its word.
DEFAULT_CURVES = StrategyCurves(
    presence=Curve(weights={"peak": 1.0}, bias=0.0),
    score=Curve(weights={"map": 1.0}, bias=0.0),
    min_presence=0.6,
    min_score=0.5,
)
_PEAK_CELLS = 8  # as in the words' loss of training
_LOWEST_LEVEL = 0.1  # regions are not looked for below, however low the threshold
_LEAST_LEFT = 0.5  # of a mask, when excluded pixels are cut from it
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
    view: ImageView,
    embedding: Tensor,
    name: str,
    *,
    strategy: str = "auto",
    curves: StrategyCurves = DEFAULT_CURVES,
    threshold: float | None = None,
    exclude: Tensor | None = None,
    background: Tensor | None = None,
) -> PhraseAnswer:
    """Every instance of what an embedding means.

    Args:
        view: The photo; its model has a dense text head.
        embedding: (D,) unit, centred by the pathway for its modality.
        name: Label of the masks.
        strategy: Written into the answer.
        curves: Probabilities from the evidence "peak" (presence; log odds of the map's best
            places) and "map", "peak" (score; log odds of the mean probability inside a mask, and of
            its best place).
        threshold: Least presence and least score; the curves' own levels by default.
        exclude: (E, D) embeddings, E > 0, that the phrase competes with; their pixels are cut from
            masks.
        background: (B, D) embeddings, B > 0, that it competes with.
    """
    curves = curves.at(threshold)
    field = _map(view, embedding, exclude, background)
    answer = replace(_seen(field, name, curves=curves), strategy=strategy)
    peaks: dict[Gate, float] = {
        "presence": field.peak,
        "exclusion": field.unexcluded,
        "background": field.left,
    }
    for gate, peak in peaks.items():
        chance = curves.presence.probability({"peak": peak})
        if chance < curves.min_presence:
            what = "presence" if gate == "presence" else "presence of what is left"
            reason = f"{what} {chance:.2f} < {curves.min_presence:.2f}"
            return replace(answer, gate=gate, reason=reason)
    decoded, level = _decode(view, embedding, field, threshold=threshold)
    if not decoded:
        best = float(field.fair.max().sigmoid())
        reason = f"the best place has {best:.2f}; regions start at {level:.2f}"
        return replace(answer, gate="map", reason=reason)
    min_quality = view.model.text_settings.min_quality
    if threshold is not None:  # who asks for less probable masks takes rougher ones, too
        min_quality = min(min_quality, threshold)
    candidates = _judge(view, decoded, field, curves=curves, min_quality=min_quality)
    if all(c.gate is not None for c in candidates):
        first = candidates[0]
        return replace(answer, candidates=candidates, gate=first.gate, reason=first.reason)
    return replace(answer, candidates=candidates)


def look(view: ImageView, embedding: Tensor, name: str, *, curves: StrategyCurves) -> PhraseAnswer:
    """Presence, its evidence and the similarity map of an embedding (D,); no candidates."""
    return _seen(_map(view, embedding, None, None), name, curves=curves)


def peak_of(view: ImageView, logits: Tensor) -> float:
    """The evidence of presence in a map (h8, w8) of `map_logits`: log odds of its best places."""
    rows, columns = _covered(view, logits.shape[-1])
    return _peak(logits[:rows, :columns])


def mask_evidence(mean: float, best: float) -> dict[str, float]:
    """Evidence of a mask in which a map has this mean and this highest probability."""
    return {"map": _logit(mean), "peak": _logit(best)}


def _seen(field: _Map, name: str, *, curves: StrategyCurves) -> PhraseAnswer:
    evidence = {"peak": field.peak}
    return PhraseAnswer(
        phrase=name,
        strategy="auto",
        presence=curves.presence.probability(evidence),
        evidence=evidence,
        min_presence=curves.min_presence,
        min_score=curves.min_score,
        similarity=field.similarity,
    )


def _map(
    view: ImageView, embedding: Tensor, exclude: Tensor | None, background: Tensor | None
) -> _Map:
    rivals = [part for part in (exclude, background) if part is not None]
    maps = map_logits(view, torch.cat([embedding[None], *rivals]))
    rows, columns = _covered(view, maps.shape[-1])
    own = unexcluded = fair = maps[0]
    rival = None
    if exclude is not None:
        excluded = maps[1 : 1 + len(exclude)].amax(0)
        rival = to_mask_prompts(view, excluded[None])[0, 0]
        unexcluded = _competed(own, excluded)
    if rivals:
        fair = _competed(own, maps[1:].amax(0))
    grid = to_mask_prompts(view, torch.stack([own, fair]))[:, 0]
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


def _covered(view: ImageView, size: int) -> tuple[int, int]:
    """Rows and columns of a padded square map that the photo covers."""
    frame = dense_frame(view)
    height, width = frame.resized
    cell = frame.image_size / size
    return max(1, round(height / cell)), max(1, round(width / cell))


def _peak(logits: Tensor) -> float:
    """Soft maximum of the best cells, as the presence term of training has it."""
    best = logits.flatten().topk(min(_PEAK_CELLS, logits.numel())).values
    value = float(torch.logsumexp(best, dim=0) - math.log(len(best)))
    return max(-_LIMIT, min(_LIMIT, value))


def _decode(
    view: ImageView,
    embedding: Tensor,
    field: _Map,
    *,
    threshold: float | None,
) -> tuple[list[Proposal], float]:
    """Masks of the map's regions, best first, and the level from which a place belongs to one."""
    settings = view.model.text_settings
    probability = field.fair.sigmoid()
    rows, columns = _covered(view, probability.shape[-1])
    inside = torch.zeros_like(probability)
    inside[:rows, :columns] = probability[:rows, :columns]
    level = settings.threshold
    if threshold is not None and threshold < level:
        level = max(threshold, _LOWEST_LEVEL)
    regions = find_regions(inside, level=settings.threshold, settings=settings)
    if level < settings.threshold:  # fainter ones, as far as they are elsewhere
        regions += find_regions(inside, level=level, settings=settings, beside=regions)
    if not regions:
        return [], level
    _, pathway = require_text(view.model)
    with torch.no_grad():
        token = torch.as_tensor(pathway(embedding[None]))
    found = separate(view, token, field.fair, regions, covered=(rows, columns))
    return found, level


def _judge(
    view: ImageView,
    decoded: Sequence[Proposal],
    field: _Map,
    *,
    curves: StrategyCurves,
    min_quality: float,
) -> tuple[Candidate, ...]:
    """Gates over decoded masks in order of quality; best score first."""
    settings = view.model.text_settings
    taken = torch.zeros_like(field.fair, dtype=torch.bool)
    kept: list[Candidate] = []
    dropped: list[Candidate] = []
    runners_up = 0
    for item in decoded:
        evidence = mask_evidence(item.mean, item.best)
        score = curves.score.probability(evidence)
        candidate = partial(_candidate, view, item, evidence, score)
        mask = item.logits > 0
        covered = float((mask & taken).sum()) / max(1, int(mask.sum()))
        if item.rejected or covered > settings.overlap:
            runners_up += 1
            if runners_up <= _RUNNERS_UP:
                reason = item.rejected or f"{covered:.0%} of it is covered by better masks"
                dropped.append(candidate(item.logits, "duplicate", reason))
            continue
        taken |= mask
        logits = tidied(item.logits, item.region.cells)
        if score < curves.min_score:
            reason = f"score {score:.2f} < {curves.min_score:.2f}"
            dropped.append(candidate(logits, "score", reason))
            continue
        if item.quality < min_quality:
            reason = f"predicted IoU x map {item.quality:.2f} < {min_quality:.2f}"
            dropped.append(candidate(logits, "quality", reason))
            continue
        if field.rival is not None:
            cut = (field.rival + settings.exclusion_margin > field.own) & (logits > 0)
            left = 1 - float(cut.sum()) / max(1, int((logits > 0).sum()))
            if left < _LEAST_LEFT:
                reason = f"{1 - left:.0%} of it is rather what is excluded"
                dropped.append(candidate(logits, "exclusion", reason))
                continue
            logits = torch.where(cut, -logits.abs(), logits)
        kept.append(candidate(logits, None, ""))
    kept = [c for c in kept if rle_area(c.rle)]
    return (*sorted(kept, key=lambda c: -c.score), *sorted(dropped, key=lambda c: -c.score))


def _candidate(
    view: ImageView,
    item: Proposal,
    evidence: dict[str, float],
    score: float,
    logits: Tensor,
    gate: Gate | None,
    reason: str,
) -> Candidate:
    full = to_original_frame(logits[None], view.frame)
    inner = int((full > 1).sum())
    outer = max(1, int((full > -1).sum()))
    x, y = view.frame.points_to_original(np.array([item.point], np.float32))[0]
    return Candidate(
        rle=encode_masks((full > 0).numpy())[0],
        score=score,
        iou=item.iou,
        stability=inner / outer,
        evidence=evidence,
        point=(float(x), float(y)),
        low_res=logits.half().numpy(),
        gate=gate,
        reason=reason,
    )


def _logit(p: float) -> float:
    p = min(max(p, 1e-6), 1 - 1e-6)
    return math.log(p / (1 - p))
