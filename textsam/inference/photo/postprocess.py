"""Between the decoder's low-resolution logits and masks of the photo; regions of masks."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from textsam.values.geometry import Frame

__all__ = [
    "connected_components",
    "depth_inside",
    "joined",
    "mask_to_low_res",
    "nearest_mask",
    "stability_score",
    "to_original_frame",
    "without_small_regions",
]

# Logits of a bool mask as a prompt, about as large as the decoder's own where it is sure.
_MASK_LOGIT = 8.0


def to_original_frame(logits: Tensor, frame: Frame) -> Tensor:
    """Upscale logits (K, m, m) of the padded frame to (K, H, W), bilinear, without the padding."""
    # In two steps, first to the model frame and then to the photo, as in the released code.
    side = frame.image_size
    height, width = frame.resized
    full = F.interpolate(logits[None], (side, side), mode="bilinear", align_corners=False)
    cut = full[..., :height, :width]
    return F.interpolate(cut, frame.size, mode="bilinear", align_corners=False)[0]


def mask_to_low_res(
    mask: NDArray[np.bool_] | NDArray[np.float32], frame: Frame, size: int
) -> Tensor:
    """A mask of the photo, (H, W) bool or logits, as a mask prompt (1, 1, m, m) of logits."""
    values = torch.from_numpy(np.array(mask, dtype=np.float32))[None, None]
    if mask.dtype == np.bool_:
        values = (2 * values - 1) * _MASK_LOGIT
    share = size / frame.image_size
    inner = tuple(max(1, round(side * share)) for side in frame.resized)
    small = F.interpolate(values, inner, mode="area")
    pad = (0, size - inner[1], 0, size - inner[0])
    return F.pad(small, pad, value=-_MASK_LOGIT)


def stability_score(logits: Tensor, *, offset: float = 1.0) -> Tensor:
    """IoU of the masks at logits +offset and -offset (Appendix B): (K, h, w) -> (K,)."""
    inner = (logits > offset).sum((-2, -1))
    outer = (logits > -offset).sum((-2, -1))
    return inner / outer.clamp(min=1)


def nearest_mask(masks: NDArray[np.bool_], x: float, y: float) -> int:
    """Index of the smallest of K > 0 masks (K, H, W) that contains a point, or of the nearest."""
    inside = np.flatnonzero(masks[:, int(y), int(x)])
    if len(inside):
        return int(inside[masks[inside].sum((1, 2)).argmin()])
    distances = []
    for mask in masks:
        rows, columns = np.nonzero(mask)
        square = (rows + 0.5 - y) ** 2 + (columns + 0.5 - x) ** 2
        distances.append(square.min() if len(square) else np.inf)
    return int(np.argmin(distances))


def connected_components(mask: Tensor) -> Tensor:
    """Label the 8-connected regions of (h, w) bool: (h, w) int64, 0 outside, then from 1."""
    # The mask is cut into runs along its rows, and runs that touch one of the next row are joined,
    # so that the work grows with the number of runs and not of pixels.
    height, width = mask.shape
    stride = width + 1  # an empty column between the rows, so that no run crosses a row's end
    inside = np.zeros((height, stride), np.int8)
    inside[:, :width] = mask.cpu().numpy()
    steps = np.diff(inside.ravel(), prepend=np.int8(0))
    starts, ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    first = np.searchsorted(ends, starts + stride)
    touching = np.searchsorted(starts, ends + stride, side="right") - first
    upper = np.repeat(np.arange(len(starts)), touching)
    lower = np.arange(len(upper)) + np.repeat(first - np.cumsum(touching) + touching, touching)
    _, number = np.unique(joined(len(starts), upper, lower), return_inverse=True)
    labels = np.zeros((height, width), np.int64)
    labels[inside[:, :width] > 0] = np.repeat(number.ravel() + 1, ends - starts)
    return torch.from_numpy(labels)


def joined(count: int, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each of `count` nodes the lowest node connected with it by edges a[i] - b[i]."""
    lowest = np.arange(count)
    while True:
        one, other = lowest[a], lowest[b]
        if (one == other).all():
            return lowest
        np.minimum.at(lowest, np.maximum(one, other), np.minimum(one, other))
        while (lowest != lowest[lowest]).any():
            lowest = lowest[lowest]


def depth_inside(cells: Tensor) -> Tensor:
    """Distance in cells from each cell inside a mask to the nearest one outside.

    Args:
        cells: (h, w) bool, not empty; everything beyond the array is outside.

    Returns:
        (h, w) float32, 0 outside.
    """
    columns, rows = (torch.nonzero(cells.any(axis))[:, 0] for axis in (0, 1))
    y, x = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
    inside = F.pad(cells[y, x].float(), (1, 1, 1, 1))[None, None]
    depth = torch.zeros_like(inside)
    while bool(inside.any()):
        depth += inside
        inside = -F.max_pool2d(-inside, 3, stride=1, padding=1)
    whole = torch.zeros(cells.shape)
    whole[y, x] = depth[0, 0, 1:-1, 1:-1]
    return whole


def without_small_regions(mask: NDArray[np.bool_], min_area: int) -> NDArray[np.bool_]:
    """Fill gaps, then remove pieces, of fewer than `min_area` pixels; the largest piece stays.

    A gap is an 8-connected region outside the mask, also at the photo's border, as in the released
    code. Only the mask's box is searched; around it there is one gap.
    """
    if not mask.any():
        return mask
    height, width = mask.shape
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    y0, y1, x0, x1 = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    # One row or column around the box, on the sides where the photo goes on.
    top, left = int(y0 > 0), int(x0 > 0)
    part = np.pad(mask[y0:y1, x0:x1], ((top, int(y1 < height)), (left, int(x1 < width))))
    gaps = connected_components(torch.from_numpy(~part)).numpy()
    inner = np.s_[top : top + y1 - y0, left : left + x1 - x0]
    sizes = np.bincount(gaps[inner].ravel(), minlength=int(gaps.max()) + 1)
    around = [
        ((0, 0), np.s_[:y0, :]),
        ((-1, -1), np.s_[y1:, :]),
        ((top, 0), np.s_[y0:y1, :x0]),
        ((top, -1), np.s_[y0:y1, x1:]),
    ]
    result = mask.copy()
    bands = [(int(gaps[place]), result[band]) for place, band in around if result[band].size]
    for gap, band in bands:
        sizes[gap] += band.size
    small = np.flatnonzero(sizes < min_area)
    result[y0:y1, x0:x1] |= np.isin(gaps[inner], small[small > 0])
    for gap, band in bands:  # they are views of the result
        band |= gap in small
    return _without_small_pieces(result, min_area)


def _without_small_pieces(mask: NDArray[np.bool_], min_area: int) -> NDArray[np.bool_]:
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    pieces = connected_components(torch.from_numpy(np.ascontiguousarray(mask[box]))).numpy()
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    large = np.flatnonzero(sizes >= min_area)
    mask[box] &= np.isin(pieces, large if len(large) else [int(sizes.argmax())])
    return mask
