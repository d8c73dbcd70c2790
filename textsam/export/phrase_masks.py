"""`strategy="auto"` on an exported model: the map of a phrase -> masks, with numpy.

The same steps as `inference/strategies/map_points.py` and `regions.py`, which say why; verdicts are
those of `values/judge.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from textsam.values.cells import depth_inside_cells, label_regions
from textsam.values.judge import Levels, MaskNumbers, StrategyCurves, find_repeats
from textsam.values.settings import TextSettings

__all__ = ["Decode", "MapMask", "map_masks", "mask_odds", "peak_odds", "sigmoid"]

Floats: TypeAlias = NDArray[np.float32]
Bools: TypeAlias = NDArray[np.bool_]
# Points (P, 2) in cells, and maps (P, m, m) as mask prompts or None -> logits (P, m, m), IoU (P,).
Decode: TypeAlias = Callable[[Floats, Floats | None], tuple[Floats, Floats]]

_PEAK_CELLS = 8
_MAX_LOG_ODDS = 30.0
_MAX_REPEATS = 3
_MIN_HOLE_CELLS = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class MapRegion:
    """A connected region of a map."""

    cells: Bools  # (m, m)
    points: Floats  # (N, 2) x, y in cells, best first


@dataclass(frozen=True, kw_only=True, eq=False)
class MapMask:
    """A mask on the grid of mask prompts, and what was measured of it."""

    logits: Floats  # (m, m)
    iou: float  # predicted IoU
    mean: float  # mean probability of the map inside
    best: float  # highest probability inside
    region: MapRegion
    rejected: str = ""
    numbers: MaskNumbers = field(default_factory=MaskNumbers)

    @property
    def quality(self) -> float:
        """Predicted IoU x mean probability."""
        return max(0.0, self.iou) * self.mean


def sigmoid(logits: Floats) -> Floats:
    """Probabilities of log odds."""
    # exp of large numbers overflows to infinity, whose inverse is the right 0.
    with np.errstate(over="ignore"):
        return np.asarray(1 / (1 + np.exp(-logits)), np.float32)


def peak_odds(logits: Floats) -> float:
    """The evidence of presence: log odds of a map's best cells, their soft maximum."""
    best = np.sort(logits.ravel())[-_PEAK_CELLS:].astype(np.float64)
    value = float(np.log(np.exp(best - best[-1]).mean()) + best[-1])
    return max(-_MAX_LOG_ODDS, min(_MAX_LOG_ODDS, value))


def mask_odds(mean: float, best: float) -> dict[str, float]:
    """The evidence of a mask in which a map has this mean and this highest probability."""
    limits = 1e-6, 1 - 1e-6
    mean, best = (min(max(p, limits[0]), limits[1]) for p in (mean, best))
    return {"map": math.log(mean / (1 - mean)), "peak": math.log(best / (1 - best))}


def map_masks(
    logits: Floats,  # (m, m) log odds of the phrase on the grid of mask prompts
    covered: tuple[int, int],  # rows and columns of the grid that the photo covers
    decode: Decode,
    *,
    curves: StrategyCurves,
    levels: Levels,
    settings: TextSettings,
) -> list[MapMask]:
    """Masks of the map's regions with their numbers, not judged yet; best score first."""
    probability = np.zeros_like(logits)
    rows, columns = covered
    probability[:rows, :columns] = sigmoid(logits[:rows, :columns])
    regions = _find_regions(probability, levels.place, settings, [])
    if levels.min_place < levels.place:
        regions += _find_regions(probability, levels.min_place, settings, regions)
    if not regions:
        return []
    shown = probability[:rows, :columns]
    masks = _decode_regions(logits, shown, decode, regions, settings)
    found = np.stack([item.logits > 0 for item in masks])
    repeats = find_repeats(found, [item.rejected for item in masks], max_covered=settings.overlap)
    kept = []
    for number, (item, repeat) in enumerate(zip(masks, repeats, strict=True)):
        if repeat and sum(map(bool, repeats[:number])) >= _MAX_REPEATS:
            continue
        numbers = MaskNumbers(
            score=curves.score.probability(mask_odds(item.mean, item.best)),
            quality=item.quality,
            ruled_out=("duplicate", repeat) if repeat else None,
        )
        tidy = item.logits if repeat else _tidied(item, settings.max_hole_ratio)
        kept.append(replace(item, logits=tidy, numbers=numbers))
    return sorted(kept, key=lambda item: -item.numbers.score)


def _find_regions(
    probability: Floats, level: float, settings: TextSettings, beside: Sequence[MapRegion]
) -> list[MapRegion]:
    labels = label_regions(probability > level)
    counts = np.bincount(labels.ravel())
    known = {int(i) for region in beside for i in np.unique(labels[region.cells])}
    large = np.flatnonzero(counts >= settings.min_cells).tolist()
    numbers = [i for i in large if i > 0 and i not in known]
    peaks = {i: float(probability[labels == i].max()) for i in numbers}
    numbers.sort(key=lambda i: -peaks[i])
    regions: list[MapRegion] = []
    left = settings.max_points - sum(len(region.points) for region in beside)
    for number in numbers:
        if left <= 0:
            break
        cells = labels == number
        points = _find_peaks(probability, cells, min(settings.points, left), settings)
        left -= len(points)
        regions.append(MapRegion(cells=cells, points=points))
    return regions


def _find_peaks(
    probability: Floats, cells: Bools, max_points: int, settings: TextSettings
) -> Floats:
    height = _smoothed(np.where(cells, probability, 0.0)) * cells
    reach = depth_inside_cells(cells)
    row, column = np.indices(cells.shape)
    lowest = settings.min_peak_ratio * float(height.max())
    points: list[tuple[float, float]] = []
    while len(points) < max_points:
        y, x = divmod(int(height.argmax()), cells.shape[1])
        if float(height[y, x]) <= 0 or float(height[y, x]) < lowest:
            break
        points.append((x + 0.5, y + 0.5))
        radius = max(settings.min_peak_distance, settings.peak_distance_ratio * float(reach[y, x]))
        height[(row - y) ** 2 + (column - x) ** 2 <= radius**2] = -1.0
    return np.array(points, np.float32).reshape(-1, 2)


def _smoothed(values: Floats) -> Floats:
    """Means over 5 x 5 cells, of which those beyond the border are zero."""
    padded = np.pad(values, 2)
    high, wide = values.shape
    rows = np.sum([padded[i : i + high] for i in range(5)], axis=0)
    total = np.sum([rows[:, i : i + wide] for i in range(5)], axis=0)
    return np.asarray(total / 25, np.float32)


def _decode_regions(
    logits: Floats,
    shown: Floats,  # probability on the photo's part of the grid
    decode: Decode,
    regions: Sequence[MapRegion],
    settings: TextSettings,
) -> list[MapMask]:
    everywhere = np.any([region.cells for region in regions], axis=0)
    maps = np.stack([np.where(everywhere & ~r.cells, -np.abs(logits), logits) for r in regions])
    points = [region.points[0] for region in regions]
    wholes = _decode_points(shown, decode, regions, points, maps)
    masks: list[MapMask] = []
    doubtful: list[tuple[MapRegion, MapMask | None]] = []
    for region, whole in zip(regions, wholes, strict=True):
        lone = len(region.points) == 1
        if whole is not None and (lone or _accounted([whole], region) >= settings.sure):
            masks.append(whole)
        else:
            doubtful.append((region, whole))
    several = _one_by_one(shown, decode, [region for region, _ in doubtful], settings)
    for (region, whole), parts in zip(doubtful, several, strict=True):
        masks += _choose_reading(whole, parts, region, settings)
    return sorted(masks, key=lambda item: -item.quality)


def _choose_reading(
    whole: MapMask | None, parts: list[MapMask], region: MapRegion, settings: TextSettings
) -> list[MapMask]:
    if whole is None:
        return parts
    one, several = _accounted([whole], region), _accounted(parts, region)
    reason = f"quality on its region {one:.2f} as one object, {several:.2f} as several"
    if len(parts) > 1 and several > one * settings.min_several_ratio:
        return [*parts, replace(whole, rejected=reason)]
    return [whole, *(replace(part, rejected=reason) for part in parts)]


def _accounted(masks: Sequence[MapMask], region: MapRegion) -> float:
    left = region.cells.copy()
    total, value = int(left.sum()), 0.0
    for item in sorted(masks, key=lambda item: -item.quality):
        mask = item.logits > 0
        value += item.quality * int((left & mask).sum()) / total
        left &= ~mask
    return value


def _one_by_one(
    shown: Floats, decode: Decode, regions: Sequence[MapRegion], settings: TextSettings
) -> list[list[MapMask]]:
    masks: list[list[MapMask]] = [[] for _ in regions]
    waiting = [list(region.points) for region in regions]
    known = [np.zeros(region.cells.shape, np.float32) for region in regions]
    while any(waiting):
        turn = [k for k, points in enumerate(waiting) if points]
        points = [waiting[k].pop(0) for k in turn]
        found = _decode_points(shown, decode, [regions[k] for k in turn], points, None)
        for k, item in zip(turn, found, strict=True):
            if item is None:
                continue
            masks[k].append(item)
            known[k] += np.float32(max(0.0, item.iou)) * (item.logits > 0)
            limit = settings.max_known_iou
            waiting[k] = [p for p in waiting[k] if known[k][int(p[1]), int(p[0])] < limit]
    return masks


def _decode_points(
    shown: Floats,
    decode: Decode,
    regions: Sequence[MapRegion],
    points: Sequence[Floats],
    maps: Floats | None,
) -> list[MapMask | None]:
    logits, iou = decode(np.stack(points), maps)
    rows, columns = shown.shape
    masks: list[MapMask | None] = []
    for k, region in enumerate(regions):
        inside = shown[logits[k, :rows, :columns] > 0]
        masks.append(
            MapMask(
                logits=logits[k],
                iou=float(iou[k]),
                mean=float(inside.mean()),
                best=float(inside.max()),
                region=region,
            )
            if len(inside)
            else None
        )
    return masks


def _tidied(item: MapMask, max_hole_ratio: float) -> Floats:
    """Logits without the pieces that do not touch their region, and without small holes."""
    logits = item.logits.copy()
    pieces = label_regions(logits > 0)
    own = np.unique(pieces[item.region.cells & (pieces > 0)])
    if len(own):
        logits[(pieces > 0) & ~np.isin(pieces, own)] = -1.0
    gaps = label_regions(logits <= 0)
    limit = max(_MIN_HOLE_CELLS, int(max_hole_ratio * int((logits > 0).sum())))
    holes = np.flatnonzero(np.bincount(gaps.ravel()) <= limit)
    logits[(gaps > 0) & np.isin(gaps, holes)] = 1.0
    return logits
