"""A grid of points, three masks each, and box NMS, for automatic masks and for edges."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textsam.inference.photo.encoded import EncodedPhoto
from textsam.inference.photo.prediction import decode_above, point_prompts
from textsam.values.geometry import Frame


@dataclass(frozen=True, kw_only=True, eq=False)
class PointMasks:
    """N masks of prompts with one point each, on the CPU."""

    logits: Tensor  # (N, m, m) in the padded model frame
    iou: Tensor  # (N,) predicted IoU
    points: Tensor  # (N, 2) x, y of the prompts, model pixels

    def __len__(self) -> int:
        return len(self.iou)

    def __getitem__(self, index: Tensor) -> PointMasks:
        return PointMasks(logits=self.logits[index], iou=self.iou[index], points=self.points[index])


@dataclass(kw_only=True)
class AutomaticReport:
    """How many masks were left after each filter."""

    decoded: int = 0  # masks from the decoder, three for each point
    # Masks left, by the filter's name, in the order of the filters.
    after: dict[str, int] = field(default_factory=dict)

    def count(self, name: str, number: int) -> None:
        """Add to the masks left after a filter."""
        self.after[name] = self.after.get(name, 0) + number


def point_grid(per_side: int) -> NDArray[np.float64]:
    """Centres of per_side^2 equal cells of the unit square, row by row: (N, 2) x, y."""
    line = (np.arange(per_side) + 0.5) / per_side
    x, y = np.meshgrid(line, line)
    return np.stack([x.ravel(), y.ravel()], axis=1)


def decode_points(
    photo: EncodedPhoto, grid: NDArray[np.float64], *, batch: int, iou: float = -math.inf
) -> Iterator[PointMasks]:
    """The masks of points of a grid (N, 2) of shares, a batch of points at a time.

    Of the three masks of each point those with a predicted IoU above `iou`.
    """
    places = (grid * np.array([photo.size[1], photo.size[0]])).astype(np.float32)
    points_in_frame = torch.from_numpy(photo.frame.points_to_model(places)).float()
    for start in range(0, len(points_in_frame), batch):
        points = points_in_frame[start : start + batch]
        prompts = point_prompts(photo, points)
        # Index 0 is the mask for unambiguous prompts.
        logits, scores, index = decode_above(photo, prompts, iou, masks=slice(1, None))
        yield PointMasks(logits=logits, iou=scores, points=points[index])


def cell_boxes(logits: Tensor, frame: Frame) -> tuple[Tensor, Tensor]:
    """Boxes of masks (N, m, m) on the decoder's grid, without the padding.

    Returns (N,) bool, whether a mask has a cell in the photo, and (N, 4) half-open x0, y0, x1, y1
    in cells, meaningless for a mask without one.
    """
    rows, columns = frame.covered(logits.shape[-1])
    inside = logits[:, :rows, :columns] > 0
    boxes = inclusive_boxes(inside.numpy())
    boxes[:, 2:] += 1
    return inside.flatten(1).any(1), boxes


def inclusive_boxes(masks: NDArray[np.bool_]) -> Tensor:
    """(N, 4) float32 first and last column and row of masks (N, h, w); zeros for an empty one."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
        if len(columns):
            box[:] = columns[0], rows[0], columns[-1], rows[-1]
    return torch.from_numpy(boxes)


def box_nms(boxes: Tensor, scores: Tensor, limit: float) -> Tensor:
    """Indices, best first, of the boxes (N, 4) that no better one overlaps by more than `limit`.

    The result of `torchvision.ops.nms`, whose import takes longer than to load the shipped model.
    """
    rest = torch.argsort(scores.float(), descending=True, stable=True).numpy()
    sides = boxes.float().numpy()
    areas = (sides[:, 2] - sides[:, 0]) * (sides[:, 3] - sides[:, 1])
    kept: list[int] = []
    while len(rest):
        best, rest = int(rest[0]), rest[1:]
        kept.append(best)
        start = np.maximum(sides[best, :2], sides[rest, :2])
        end = np.minimum(sides[best, 2:], sides[rest, 2:])
        shared = np.prod(np.maximum(end - start, 0), axis=1)
        with np.errstate(invalid="ignore"):  # two boxes without an area overlap by 0 / 0
            overlap = shared / (areas[best] + areas[rest] - shared)
        rest = rest[~(overlap.astype(np.float64) > limit)]
    return torch.tensor(kept, dtype=torch.int64)
