"""The part of a photo that a view shows, and masks seen through it.

Photos and masks go through Pillow's bilinear resize. In a large photo a small mask is written out
and resized around itself alone: with 64 masks on three megapixels that is most of the work.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from textsam.values.rle import RLE, rle_runs

# In photos of fewer pixels, and for masks whose box takes more of the photo, the whole is as fast.
_LARGE_PHOTO = 1 << 20
_LARGE_MASK = 0.25

# Windows around one object: side in long sides of its box (in use it is 1.4), the smallest, pixels,
# and how far off the centre, as a share of the side. Ours, not the paper's.
_AROUND = (1.15, 2.6)
_LEAST_WINDOW = 48.0
_OFF_CENTRE = 0.15


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A rectangle of a photo, scaled and perhaps mirrored."""

    size: tuple[int, int]  # (H, W) of the photo
    box: tuple[float, float, float, float]  # x0, y0, x1, y1 in the photo, pixels, not rounded
    window: tuple[int, int]  # (h, w) that it fills in the model frame
    mirror: bool  # whether it is mirrored

    def picture(self, picture: Image.Image) -> NDArray[np.uint8]:
        """Cut, scale and mirror a picture."""
        size = (self.window[1], self.window[0])
        array = np.asarray(picture.resize(size, Image.Resampling.BILINEAR, box=self.box))
        return np.array(array[:, ::-1] if self.mirror else array)

    def mask(self, rle: RLE) -> NDArray[np.bool_]:
        """The same to a mask, (h, w) bool."""
        shown = np.zeros(self.window, dtype=bool)
        edges = _edges(rle)
        if len(edges) == 0:
            return shown
        height, width = self.size
        # RLE runs go down the columns, so the first and last edge give the columns.
        x0, x1 = int(edges[0]) // height, (int(edges[-1]) - 1) // height + 1
        part = _columns(edges, x0, x1, height)
        filled = np.flatnonzero(part.any(axis=0))
        y0, y1 = int(filled[0]), int(filled[-1]) + 1
        area = height * width
        if area < _LARGE_PHOTO or (x1 - x0) * (y1 - y0) > _LARGE_MASK * area:
            grey = np.zeros((height, width), np.uint8)
            grey[:, x0:x1] = part.T
            return self.picture(Image.fromarray(grey)) > 127
        columns, left, right = _reach(x0, x1, self.box[0], self.box[2], self.window[1], width)
        rows, top, bottom = _reach(y0, y1, self.box[1], self.box[3], self.window[0], height)
        if len(columns) and len(rows):
            grey = np.zeros((bottom - top, right - left), np.uint8)
            first, last = max(x0, left), min(x1, right)
            grey[:, first - left : last - left] = part[first - x0 : last - x0, top:bottom].T
            across = (self.box[2] - self.box[0]) / self.window[1]
            down = (self.box[3] - self.box[1]) / self.window[0]
            box = (
                self.box[0] + columns.start * across - left,
                self.box[1] + rows.start * down - top,
                self.box[0] + columns.stop * across - left,
                self.box[1] + rows.stop * down - top,
            )
            size = (len(columns), len(rows))
            small = Image.fromarray(grey).resize(size, Image.Resampling.BILINEAR, box=box)
            shown[rows.start : rows.stop, columns.start : columns.stop] = np.asarray(small) > 127
        return np.array(shown[:, ::-1]) if self.mirror else shown


def draw_cut(
    size: tuple[int, int],
    rng: np.random.Generator,
    *,
    side: int,
    share: float,
    around: Sequence[float] | None = None,
    flip: float,
) -> Cut:
    """Draw what a frame of `side` pixels shows of a photo of `size` (H, W).

    The photo's long side becomes `share` of the frame. With `around`, a half-open box (x0, y0, x1,
    y1) of an object, the window is cut around it instead, and `share` does not count.
    """
    height, width = size
    # The long side becomes `share` of the frame.
    factor = side * share / max(height, width)
    centre: tuple[float, float] | None = None
    if around is not None:
        x0, y0, x1, y1 = around
        length = max(x1 - x0, y1 - y0) * rng.uniform(*_AROUND)
        factor = side / min(max(length, _LEAST_WINDOW), float(max(height, width)))
        # Not always in the middle, or the network would learn to answer the middle.
        off = rng.normal(size=2) * _OFF_CENTRE * length
        centre = ((y0 + y1) / 2 + off[0], (x0 + x1) / 2 + off[1])
    scaled = (max(1, round(height * factor)), max(1, round(width * factor)))
    window = (min(side, scaled[0]), min(side, scaled[1]))
    top = int(rng.integers(0, scaled[0] - window[0] + 1))
    left = int(rng.integers(0, scaled[1] - window[1] + 1))
    if centre is not None:
        top = int(np.clip(centre[0] * factor - window[0] / 2, 0, scaled[0] - window[0]))
        left = int(np.clip(centre[1] * factor - window[1] / 2, 0, scaled[1] - window[1]))
    mirror = bool(rng.random() < flip)
    box = (
        left / factor,
        top / factor,
        min((left + window[1]) / factor, width),
        min((top + window[0]) / factor, height),
    )
    return Cut(size=(height, width), box=box, window=window, mirror=mirror)


def _edges(rle: RLE) -> NDArray[np.int64]:
    """Where runs of ones start and end, down the columns: start, end, start, end, ..."""
    runs = rle_runs(rle)
    ends = np.cumsum(runs)
    ones = runs[1::2] > 0  # a code may hold empty runs
    starts, stops = ends[:-1:2][ones[: len(ends[1::2])]], ends[1::2][ones]
    return np.stack([starts, stops], axis=1).reshape(-1)


def _columns(edges: NDArray[np.int64], low: int, high: int, height: int) -> NDArray[np.uint8]:
    """Columns low up to but not with high of a mask, (high - low, H) uint8 of 0 and 255."""
    bounds = np.concatenate([[low * height], edges, [high * height]])
    values = np.zeros(len(bounds) - 1, np.uint8)
    values[1::2] = 255
    return np.repeat(values, np.diff(bounds)).reshape(high - low, height)


def _reach(
    low: int, high: int, start: float, stop: float, count: int, size: int
) -> tuple[range, int, int]:
    """Output pixels that see input pixels low to high along one axis, and the input they see."""
    scale = (stop - start) / count
    support = max(scale, 1.0) + 1  # of the bilinear filter, and one pixel for rounding
    first = max(0, math.floor((low - support - start) / scale))
    last = min(count, math.ceil((high + support - start) / scale))
    # Up to the photo's edge and not beyond: there Pillow gives the remaining pixels more weight.
    left = max(0, math.floor(start + first * scale - support))
    return range(first, last), left, min(size, math.ceil(start + last * scale + support))
