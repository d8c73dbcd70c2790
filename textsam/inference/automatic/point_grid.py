"""A grid of points, three masks each, and box NMS: what everything asked point by point shares."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textsam.modeling.prompt_encoder import FOREGROUND, NOT_A_POINT, PromptBatch
from textsam.values.geometry import Frame

if TYPE_CHECKING:
    from textsam.inference.view import ImageView

__all__ = [
    "Answers",
    "box_nms",
    "cell_boxes",
    "decode_points",
    "inclusive_boxes",
    "point_grid",
]


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """N masks of prompts with a point each, on the CPU.

    Attributes:
        logits: (N, m, m) of the padded frame.
        iou: (N,) predicted IoU.
        points: (N, 2) x, y in model pixels that they were asked with.
    """

    logits: Tensor
    iou: Tensor
    points: Tensor

    def __len__(self) -> int:
        return len(self.iou)

    def __getitem__(self, index: Tensor) -> Answers:
        return Answers(logits=self.logits[index], iou=self.iou[index], points=self.points[index])


def point_grid(per_side: int) -> NDArray[np.float64]:
    """Middles of per_side^2 equal cells of the unit square, row by row: (N, 2) x, y."""
    line = (np.arange(per_side) + 0.5) / per_side
    x, y = np.meshgrid(line, line)
    return np.stack([x.ravel(), y.ravel()], axis=1)


def decode_points(view: ImageView, grid: NDArray[np.float64], *, batch: int) -> Iterator[Answers]:
    """Three masks for each point, a batch of points at a time.

    Args:
        view: The photo.
        grid: (N, 2) x, y as shares of the photo's width and height; see `point_grid`.
        batch: Points decoded at once.

    Yields:
        3b masks for b points.
    """
    places = (grid * np.array([view.size[1], view.size[0]])).astype(np.float32)
    moved = torch.from_numpy(view.frame.points_to_model(places)).float()
    for start in range(0, len(moved), batch):
        points = moved[start : start + batch]
        logits, iou = view.decode(_point_prompts(view, points))
        yield Answers(
            logits=logits[:, 1:].flatten(0, 1),
            iou=iou[:, 1:].flatten(),
            points=points.repeat_interleave(logits.shape[1] - 1, 0),
        )


def _point_prompts(view: ImageView, points: Tensor) -> PromptBatch:
    count, device = len(points), view.model.device
    return PromptBatch(
        points=torch.stack([points, torch.zeros_like(points)], dim=1).to(device),
        labels=torch.tensor([FOREGROUND, NOT_A_POINT]).expand(count, 2).to(device),
        image_index=torch.zeros(count, dtype=torch.int64, device=device),
    )


def cell_boxes(logits: Tensor, frame: Frame) -> tuple[Tensor, Tensor]:
    """Boxes of masks on the decoder's grid, the padding left out: what lies there alone is nothing.

    Args:
        logits: (N, m, m) of the padded frame.
        frame: The photo's.

    Returns:
        (N,) bool: whether a mask has a cell in the photo; (N, 4) half-open x0, y0, x1, y1 in cells,
        without meaning for one that has none.
    """
    cell = logits.shape[-1] / frame.image_size
    rows, columns = (max(1, round(side * cell)) for side in frame.resized)
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
    """Indices, best first, of the boxes (N, 4) that no better one overlaps by more than `limit`."""
    from torchvision.ops import nms  # type: ignore[import-untyped]

    return torch.as_tensor(nms(boxes.float(), scores.float(), limit))
