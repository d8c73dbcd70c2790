"""Points separate: a region of a phrase's map is one thing, or several.

First the decoder is asked at the best point of each region, with the phrase and the region's map:
as one thing. Where that mask does not account well for the region, and the region has further
points, it is asked a point at a time without the map: as several. The reading that accounts better
for the region is kept.

A region is accounted for by the predicted IoU x mean probability of the masks on its cells; chosen,
with the numbers below, on training photos (100 of VOC, 50 of car parts): F1 of instances .763 and
.895 with 2.6 and 2.2 runs of the decoder for a phrase, against .747 and .868 with 14 when every
point was asked in both ways and the best masks were taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from textsam.inference.photo.encoded import EncodedPhoto
from textsam.inference.photo.prediction import decode
from textsam.inference.photo.prompt_batch import point_prompts
from textsam.inference.strategies.regions import Region, one_region

__all__ = ["Proposal", "separate"]

# Several things are believed if they account for so many times what one does.
_SEVERAL = 1 / 1.1
# A point is not asked where the masks so far have predicted IoUs of this sum: F1 is the same from
# .3 to 1.5, and the runs double.
_ASKED = 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class Proposal:
    """A mask on the grid of mask prompts.

    Attributes:
        logits: (m, m).
        iou: Predicted IoU.
        point: x, y in model pixels that it was asked with.
        region: Where.
        mean: Mean probability of the map inside the mask.
        best: Highest probability inside.
        rejected: Why the other reading of its region was kept; empty if this one was.
    """

    logits: Tensor
    iou: float
    point: tuple[float, float]
    region: Region
    mean: float
    best: float
    rejected: str = ""

    @property
    def quality(self) -> float:
        """What masks of one phrase are ordered by."""
        return max(0.0, self.iou) * self.mean


def separate(
    photo: EncodedPhoto,
    token: Tensor,
    logits: Tensor,
    regions: Sequence[Region],
    *,
    covered: tuple[int, int],
) -> list[Proposal]:
    """Ask for the things in regions of a map.

    Args:
        photo: The photo.
        token: (1, T, C) prompt tokens of the phrase.
        logits: (m, m) log odds of its map.
        regions: Where it is above a level, at least one.
        covered: Rows and columns of the map that the photo covers.

    Returns:
        Masks, best quality first; those of the reading that was not kept say so in `rejected`.
    """
    ask = _Decoder(photo, token, logits, covered)
    everywhere = torch.stack([region.cells for region in regions]).any(0)
    maps = torch.stack([one_region(logits, region.cells, everywhere) for region in regions])
    wholes = ask.at(regions, [region.points[0] for region in regions], maps=maps)
    sure = photo.parts.text_settings.sure
    found: list[Proposal] = []
    doubtful: list[tuple[Region, Proposal | None]] = []
    for region, whole in zip(regions, wholes, strict=True):
        lone = len(region.points) == 1
        if whole is not None and (lone or _accounted([whole], region) >= sure):
            found.append(whole)
        else:
            doubtful.append((region, whole))
    several = _one_by_one(ask, [region for region, _ in doubtful])
    for (region, whole), parts in zip(doubtful, several, strict=True):
        found += _better(whole, parts, region)
    return sorted(found, key=lambda item: -item.quality)


def _better(whole: Proposal | None, parts: list[Proposal], region: Region) -> list[Proposal]:
    """Both readings of a region, one of them rejected."""
    if whole is None:
        return parts
    one, many = _accounted([whole], region), _accounted(parts, region)
    told = f"as one thing its region is accounted for by {one:.2f}, as several by {many:.2f}"
    if len(parts) > 1 and many > one * _SEVERAL:
        return [*parts, replace(whole, rejected=told)]
    return [whole, *(replace(part, rejected=told) for part in parts)]


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


def _one_by_one(ask: _Decoder, regions: Sequence[Region]) -> list[list[Proposal]]:
    """Masks of each region's points without its map, as long as a point is not accounted for."""
    found: list[list[Proposal]] = [[] for _ in regions]
    waiting = [list(region.points) for region in regions]
    known = [torch.zeros(region.cells.shape) for region in regions]
    while any(waiting):
        asked = [k for k, points in enumerate(waiting) if points]
        points = [waiting[k].pop(0) for k in asked]
        answers = ask.at([regions[k] for k in asked], points, maps=None)
        for k, item in zip(asked, answers, strict=True):
            if item is None:
                continue
            found[k].append(item)
            known[k] += max(0.0, item.iou) * (item.logits > 0)
            waiting[k] = [p for p in waiting[k] if known[k][int(p[1]), int(p[0])] < _ASKED]
    return found


@dataclass(frozen=True)
class _Decoder:
    """The decoder, asked for one phrase in one photo."""

    photo: EncodedPhoto
    token: Tensor
    map_logits: Tensor
    covered: tuple[int, int]

    def at(
        self, regions: Sequence[Region], points: Sequence[Tensor], *, maps: Tensor | None
    ) -> list[Proposal | None]:
        """The mask at a point (2,) x, y in cells of each region, with maps (P, m, m) or without.

        None where it is empty.
        """
        photo, rows, columns = self.photo, *self.covered
        places = torch.stack(list(points)) * (photo.frame.image_size / self.map_logits.shape[-1])
        masks = None if maps is None else maps[:, None]
        tokens = self.token.expand(len(places), -1, -1)
        logits, iou = decode(photo, point_prompts(photo, places, masks=masks, tokens=tokens))
        probability = self.map_logits[:rows, :columns].sigmoid()
        found: list[Proposal | None] = []
        for k, region in enumerate(regions):
            inside = probability[logits[k, 0, :rows, :columns] > 0]
            if not len(inside):
                found.append(None)
                continue
            proposal = Proposal(
                logits=logits[k, 0],
                iou=float(iou[k, 0]),
                point=(float(places[k, 0]), float(places[k, 1])),
                region=region,
                mean=float(inside.mean()),
                best=float(inside.max()),
            )
            found.append(proposal)
        return found
