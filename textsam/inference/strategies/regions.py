"""From the map of a phrase to masks: its regions, points in them, and one object or several.

Each connected region of the map is first decoded as one object: at its best point, with the phrase
and the region's map as mask prompt. Where that mask does not account well for the region, and the
region has further points, the points are decoded one by one without the map, as several objects.
The reading that accounts better for the region is kept.

How well masks account for a region is their mean quality (predicted IoU x mean probability) over
the cells of the region. Decoding every point in both ways takes six times as long and gives worse
masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from textsam.inference.photo.encoded import EncodedPhoto
from textsam.inference.photo.prediction import (
    connected_components,
    decode,
    depth_inside,
    point_prompts,
)
from textsam.values.settings import TextSettings

# Holes of fewer cells are filled, however small the mask.
_MIN_HOLE_CELLS = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class Region:
    """A connected region of a map."""

    cells: Tensor  # (m, m) bool
    points: Tensor  # (N, 2) float32 x, y in cells, best first; the centre of a cell is at +0.5
    peak: float  # highest probability in it


@dataclass(frozen=True, kw_only=True, eq=False)
class PhraseMap:
    """What the decoder gets of a phrase."""

    token: Tensor | None  # (1, T, C) prompt tokens; None where the map is all
    logits: Tensor  # (m, m) log odds on the grid of mask prompts
    # Rows and columns of the grid that the photo covers; the others are padding.
    covered: tuple[int, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class Proposal:
    """A mask on the grid of mask prompts."""

    logits: Tensor  # (m, m)
    iou: float  # predicted IoU
    point: tuple[float, float]  # x, y of its prompt, model pixels
    region: Region  # the region that the point lies in
    mean: float  # mean probability of the map inside the mask
    best: float  # highest probability inside
    rejected: str = ""  # why the other reading of its region was kept; empty if this one was

    @property
    def quality(self) -> float:
        """Predicted IoU x mean probability, by which masks of one phrase are ordered."""
        return max(0.0, self.iou) * self.mean


def find_regions(
    probability: Tensor,  # (m, m) on the grid of mask prompts, zero on padding
    *,
    level: float,  # probability from which a cell belongs to a region
    # Sizes and counts; all regions together have at most `max_points` points.
    settings: TextSettings,
    # Earlier regions, whose points count; regions that touch them are left out.
    beside: Sequence[Region] = (),
) -> list[Region]:
    """Regions of a map above a level, highest peak first, with their points."""
    labels = connected_components(probability > level)
    counts = torch.bincount(labels.flatten())
    known = {int(i) for region in beside for i in labels[region.cells].unique()}
    large = torch.nonzero(counts >= settings.min_cells)[:, 0].tolist()
    numbers = [i for i in large if i > 0 and i not in known]
    peaks = {i: float(probability[labels == i].max()) for i in numbers}
    numbers.sort(key=lambda i: -peaks[i])
    regions: list[Region] = []
    left = settings.max_points - sum(len(region.points) for region in beside)
    for number in numbers:
        if left <= 0:
            break
        cells = labels == number
        max_points = min(settings.points, left)
        points = _peaks(probability, cells, max_points=max_points, settings=settings)
        left -= len(points)
        regions.append(Region(cells=cells, points=points, peak=peaks[number]))
    return regions


def _peaks(
    probability: Tensor, cells: Tensor, *, max_points: int, settings: TextSettings
) -> Tensor:
    """Peaks of a region, (N, 2) x, y in cells: the best first, each hiding its surroundings."""
    # In the region's box alone: there is nothing beyond it.
    rows, columns = (torch.nonzero(cells.any(axis))[:, 0] for axis in (1, 0))
    top, left = int(rows[0]), int(columns[0])
    box = slice(top, int(rows[-1]) + 1), slice(left, int(columns[-1]) + 1)
    cells = cells[box]
    width = cells.shape[1]
    inside = torch.where(cells, probability[box], 0.0)
    # Smoothed, so that a peak lies in the middle of a good part and not at its border.
    height = F.avg_pool2d(inside[None, None], 5, stride=1, padding=2)[0, 0] * cells
    reach = depth_inside(cells)
    row, column = torch.arange(len(cells))[:, None], torch.arange(width)
    lowest = settings.min_peak_ratio * float(height.max())
    points: list[tuple[float, float]] = []
    while len(points) < max_points:
        y, x = divmod(int(height.argmax()), width)
        if float(height[y, x]) <= 0 or float(height[y, x]) < lowest:
            break
        points.append((left + x + 0.5, top + y + 0.5))
        radius = max(settings.min_peak_distance, settings.peak_distance_ratio * float(reach[y, x]))
        height[(row - y) ** 2 + (column - x) ** 2 <= radius**2] = -1.0
    return torch.tensor(points, dtype=torch.float32).reshape(-1, 2)


def decode_regions(
    photo: EncodedPhoto, phrase: PhraseMap, regions: Sequence[Region]
) -> list[Proposal]:
    """Masks of the objects in one or more regions of a phrase's map, best quality first.

    Those of a reading that was not kept have `rejected`.
    """
    settings = photo.parts.text_settings
    everywhere = torch.stack([region.cells for region in regions]).any(0)
    maps = torch.stack([_one_region(phrase.logits, r.cells, everywhere) for r in regions])
    wholes = _decode_points(photo, phrase, regions, [r.points[0] for r in regions], maps=maps)
    proposals: list[Proposal] = []
    doubtful: list[tuple[Region, Proposal | None]] = []
    for region, whole in zip(regions, wholes, strict=True):
        lone = len(region.points) == 1
        if whole is not None and (lone or _accounted([whole], region) >= settings.sure):
            proposals.append(whole)
        else:
            doubtful.append((region, whole))
    several = _decode_one_by_one(photo, phrase, [region for region, _ in doubtful], settings)
    for (region, whole), parts in zip(doubtful, several, strict=True):
        proposals += _choose_reading(whole, parts, region, settings)
    return sorted(proposals, key=lambda item: -item.quality)


def _one_region(logits: Tensor, region: Tensor, all_regions: Tensor) -> Tensor:
    """The map (m, m) with the log odds of all other regions made negative."""
    return torch.where(all_regions & ~region, -logits.abs(), logits)


def _choose_reading(
    whole: Proposal | None, parts: list[Proposal], region: Region, settings: TextSettings
) -> list[Proposal]:
    """Both readings of a region, one of them rejected."""
    if whole is None:
        return parts
    one, several = _accounted([whole], region), _accounted(parts, region)
    reason = f"quality on its region {one:.2f} as one object, {several:.2f} as several"
    if len(parts) > 1 and several > one * settings.min_several_ratio:
        return [*parts, replace(whole, rejected=reason)]
    return [whole, *(replace(part, rejected=reason) for part in parts)]


def _accounted(masks: Sequence[Proposal], region: Region) -> float:
    """Mean over the region's cells of the quality of the best mask there; 0 where none is."""
    left = region.cells.clone()
    total = int(left.sum())
    value = 0.0
    for item in sorted(masks, key=lambda item: -item.quality):
        mask = item.logits > 0
        value += item.quality * int((left & mask).sum()) / total
        left &= ~mask
    return value


def _decode_one_by_one(
    photo: EncodedPhoto, phrase: PhraseMap, regions: Sequence[Region], settings: TextSettings
) -> list[list[Proposal]]:
    """Masks of each region's points without its map."""
    masks: list[list[Proposal]] = [[] for _ in regions]
    waiting = [list(region.points) for region in regions]
    # Sum of the predicted IoUs of the masks on each cell: points that have enough are skipped.
    known = [torch.zeros(region.cells.shape) for region in regions]
    while any(waiting):
        # One point of each region at a time: all regions share a run of the decoder.
        turn = [k for k, points in enumerate(waiting) if points]
        points = [waiting[k].pop(0) for k in turn]
        proposals = _decode_points(photo, phrase, [regions[k] for k in turn], points, maps=None)
        for k, item in zip(turn, proposals, strict=True):
            if item is None:
                continue
            masks[k].append(item)
            known[k] += max(0.0, item.iou) * (item.logits > 0)
            limit = settings.max_known_iou
            waiting[k] = [p for p in waiting[k] if known[k][int(p[1]), int(p[0])] < limit]
    return masks


def _decode_points(
    photo: EncodedPhoto,
    phrase: PhraseMap,
    regions: Sequence[Region],
    points: Sequence[Tensor],
    *,
    maps: Tensor | None,
) -> list[Proposal | None]:
    """The mask at a point (2,) of each region, with or without maps (P, m, m); None if empty."""
    (rows, columns), size = phrase.covered, phrase.logits.shape[-1]
    places = torch.stack(list(points)) * (photo.frame.image_size / size)
    prompts = point_prompts(
        photo,
        places,
        masks=None if maps is None else maps[:, None],
        tokens=None if phrase.token is None else phrase.token.expand(len(places), -1, -1),
    )
    logits, iou = decode(photo, prompts)
    probability = phrase.logits[:rows, :columns].sigmoid()
    proposals: list[Proposal | None] = []
    for k, region in enumerate(regions):
        inside = probability[logits[k, 0, :rows, :columns] > 0]
        if not len(inside):
            proposals.append(None)
            continue
        proposal = Proposal(
            logits=logits[k, 0],
            iou=float(iou[k, 0]),
            point=(float(places[k, 0]), float(places[k, 1])),
            region=region,
            mean=float(inside.mean()),
            best=float(inside.max()),
        )
        proposals.append(proposal)
    return proposals


def tidied(logits: Tensor, region: Tensor, *, max_hole_ratio: float) -> Tensor:
    """Logits (m, m) without the pieces that do not touch their region, and without small holes.

    The decoder paints a little of the next wheel, too, and leaves out a sticker on a banana. The
    paper fills holes of fewer than 100 pixels in its automatic masks (Appendix B); here up to
    `max_hole_ratio` of the mask's cells.
    """
    mask = logits.clone()
    pieces = connected_components(mask > 0)
    own = pieces[region & (pieces > 0)].unique()
    if len(own):
        mask[(pieces > 0) & ~torch.isin(pieces, own)] = -1.0
    gaps = connected_components(mask <= 0)
    sizes = torch.bincount(gaps.flatten())
    limit = max(_MIN_HOLE_CELLS, int(max_hole_ratio * int((mask > 0).sum())))
    holes = torch.nonzero(sizes <= limit)[:, 0]
    mask[(gaps > 0) & torch.isin(gaps, holes)] = 1.0
    return mask
