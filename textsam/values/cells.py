"""Masks and maps on a small grid of cells: connected regions, distance to the border, resizing.

Numpy alone, for maps of phrases, the decoder's masks and their clean-up.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from textsam.values.geometry import Frame

__all__ = [
    "area_resize",
    "bilinear_resize",
    "depth_inside_cells",
    "label_regions",
    "to_photo_size",
]


def label_regions(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Label the 8-connected regions of (h, w) bool: (h, w) int64, 0 outside, then from 1."""
    # The mask is cut into runs along its rows, and runs that touch one of the next row are joined,
    # so that the work grows with the number of runs and not of pixels.
    height, width = mask.shape
    stride = width + 1  # an empty column between the rows, so that no run crosses a row's end
    inside = np.zeros((height, stride), np.int8)
    inside[:, :width] = mask
    steps = np.diff(inside.ravel(), prepend=np.int8(0))
    starts, ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    first = np.searchsorted(ends, starts + stride)
    touching = np.searchsorted(starts, ends + stride, side="right") - first
    upper = np.repeat(np.arange(len(starts)), touching)
    lower = np.arange(len(upper)) + np.repeat(first - np.cumsum(touching) + touching, touching)
    _, number = np.unique(joined(len(starts), upper, lower), return_inverse=True)
    labels = np.zeros((height, width), np.int64)
    labels[inside[:, :width] > 0] = np.repeat(number.ravel() + 1, ends - starts)
    return labels


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


def depth_inside_cells(cells: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Distance in cells from each cell inside (h, w) bool to the nearest one outside; 0 outside.

    In steps to any of eight neighbours; everything beyond the array is outside.
    """
    inside = np.pad(cells, 1)
    depth = np.zeros(inside.shape, np.float32)
    while inside.any():
        depth += inside
        rows = inside.copy()
        rows[1:] &= inside[:-1]
        rows[:-1] &= inside[1:]
        inside = rows.copy()
        inside[:, 1:] &= rows[:, :-1]
        inside[:, :-1] &= rows[:, 1:]
    return depth[1:-1, 1:-1]


def bilinear_resize(maps: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Maps (..., h, w) at another size, between the centres of cells, without antialiasing."""
    rows, columns = (_between(have, want) for have, want in zip(maps.shape[-2:], size, strict=True))
    return np.asarray(rows @ maps @ columns.T, np.float32)


def area_resize(values: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Means (..., h, w) over the part of (..., H, W) that each cell covers, in whole pixels."""
    rows, columns = (_means(have, want) for have, want in zip(values.shape[-2:], size, strict=True))
    return np.asarray(rows @ values @ columns.T, np.float32)


def to_photo_size(logits: NDArray[np.float32], frame: Frame) -> NDArray[np.float32]:
    """Logits (..., m, m) of the padded square of a frame as (..., H, W) of its photo.

    Bilinear to the square, cut, bilinear to the photo, as in the released code; both steps are one
    matrix for each axis.
    """
    size, side = logits.shape[-1], frame.image_size
    rows, columns = (
        _twice(size, side, part, whole)
        for part, whole in zip(frame.resized, frame.size, strict=True)
    )
    return np.asarray(rows @ logits @ columns.T, np.float32)


@lru_cache(maxsize=64)
def _between(have: int, want: int) -> NDArray[np.float32]:
    """(want, have) weights of a bilinear resize, half a cell between border and first centre."""
    places = np.maximum((np.arange(want) + 0.5) * (have / want) - 0.5, 0)
    low = np.floor(places).astype(np.int64)
    share = (places - low).astype(np.float32)
    weights = np.zeros((want, have), np.float32)
    weights[np.arange(want), low] = 1 - share
    weights[np.arange(want), np.minimum(low + 1, have - 1)] += share
    return weights


@lru_cache(maxsize=64)
def _twice(size: int, side: int, part: int, whole: int) -> NDArray[np.float32]:
    """(whole, size): to the square of a side, of which the first part is brought to the photo."""
    return np.asarray(_between(part, whole) @ _between(size, side)[:part], np.float32)


@lru_cache(maxsize=64)
def _means(have: int, want: int) -> NDArray[np.float32]:
    """(want, have) weights of a mean over the whole pixels that a cell touches."""
    weights = np.zeros((want, have), np.float32)
    for row in range(want):
        start, end = row * have // want, -(-(row + 1) * have // want)
        weights[row, start:end] = 1 / (end - start)
    return weights
