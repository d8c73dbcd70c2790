"""Box NMS keeps what torchvision's keeps, without importing it."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import nms  # type: ignore[import-untyped]

from textsam.inference.automatic.point_grid import box_nms


@pytest.mark.parametrize("limit", [0.0, 0.3, 0.7, 0.85, 1.0])
@pytest.mark.parametrize("count", [0, 1, 2, 40, 700])
def test_equals_torchvision(count: int, limit: float) -> None:
    generator = torch.Generator().manual_seed(count)
    corners = torch.randint(0, 60, (count, 4), generator=generator).float()
    boxes = torch.cat([corners[:, :2], corners[:, :2] + corners[:, 2:]], dim=1)
    # Few distinct scores, so that many are equal; some boxes twice, some without an area.
    scores = torch.randint(0, 9, (count,), generator=generator) / 9
    boxes[count // 2 :: 5] = boxes[: len(boxes[count // 2 :: 5])].clone()
    boxes[::7, 2] = boxes[::7, 0]
    assert box_nms(boxes, scores, limit).tolist() == nms(boxes, scores, limit).tolist()
