"""The part of a photo that a view shows, and masks seen through it.

Photos and masks go through Pillow's bilinear resize. In a large photo a small mask is written out
and resized around itself alone, with Pillow's weights: with 64 masks on three megapixels that is
most of the work. Pillow rounds to 8 bits between its two passes, in an order that it chooses by
size, so there a pixel on the mask's border may differ from what Pillow would have made of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from textsam.values.rle import RLE, rle_runs

__all__ = ["Cut", "draw_cut"]

# Pillow's Resample.c keeps 8-bit weights as integers with so many binary places.
_PLACES = 32 - 8 - 2
# Photos of fewer pixels, and masks whose box takes more of the photo, are resized by Pillow: there
# it is as fast.
_LARGE_PHOTO = 1 << 20
_LARGE_MASK = 0.25

# Windows around one object: side in long sides of its box (in use it is 1.4), the smallest, pixels,
# and how far off the centre, as a share of the side. Ours, not the paper's.
_AROUND = (1.15, 2.6)
_LEAST_WINDOW = 48.0
_OFF_CENTRE = 0.15


class _Taps(NamedTuple):
    """Weights of Pillow's bilinear resize along one axis of n output pixels.

    Attributes:
        first: (n,) int64, first input pixel that counts.
        weights: (n, T) int32, of that pixel and those after it.
    """

    first: NDArray[np.int64]
    weights: NDArray[np.int32]

    def reached(self, low: int, high: int) -> slice:
        """Output pixels that see an input pixel of low up to but not with high."""
        start = int(np.searchsorted(self.first, low - self.weights.shape[1], side="right"))
        return slice(start, int(np.searchsorted(self.first, high, side="left")))

    def resize(self, values: NDArray[np.uint8], low: int, where: slice) -> NDArray[np.uint8]:
        """Resize the first axis of `values`, whose first row is input pixel `low`."""
        taps = self.weights.shape[1]
        padded = np.zeros((len(values) + 2 * taps, values.shape[1]), np.int32)
        padded[taps:-taps] = values
        first = self.first[where] - low + taps
        weights = self.weights[where]
        total = np.full((len(first), values.shape[1]), 1 << (_PLACES - 1), np.int32)
        for tap in range(taps):
            total += weights[:, tap, None] * padded[first + tap]
        return (total >> _PLACES).clip(0, 255).astype(np.uint8)


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A rectangle of a photo, scaled and perhaps mirrored.

    Attributes:
        size: (H, W) of the photo.
        box: x0, y0, x1, y1 in the photo, pixels, not rounded.
        window: (h, w) that it fills in the model frame.
        mirror: Whether it is mirrored.
    """

    size: tuple[int, int]
    box: tuple[float, float, float, float]
    window: tuple[int, int]
    mirror: bool

    def picture(self, picture: Image.Image) -> NDArray[np.uint8]:
        """Cut, scale and mirror a picture."""
        size = (self.window[1], self.window[0])
        array = np.asarray(picture.resize(size, Image.Resampling.BILINEAR, box=self.box))
        return np.array(array[:, ::-1] if self.mirror else array)

    def mask(self, rle: RLE) -> NDArray[np.bool_]:
        """The same to a mask, (h, w) bool.

        Raises:
            ValueError: Its code is damaged.
        """
        shown = np.zeros(self.window, dtype=bool)
        edges = _edges(rle)
        if len(edges) == 0:
            return shown
        height, width = self.size
        x0, x1 = int(edges[0]) // height, (int(edges[-1]) - 1) // height + 1
        columns = self._across.reached(x0, x1)
        if columns.start >= columns.stop:
            return shown
        part = _columns(edges, x0, x1, height)
        filled = np.flatnonzero(part.any(axis=0))
        y0, y1 = int(filled[0]), int(filled[-1]) + 1
        area = height * width
        if area < _LARGE_PHOTO or (x1 - x0) * (y1 - y0) > _LARGE_MASK * area:
            grey = np.zeros((height, width), np.uint8)
            grey[:, x0:x1] = part.T
            return self.picture(Image.fromarray(grey)) > 127
        rows = self._down.reached(y0, y1)
        if rows.start < rows.stop:
            narrow = self._across.resize(part[:, y0:y1], x0, columns)
            shown[rows, columns] = self._down.resize(narrow.T, y0, rows) > 127
        return np.array(shown[:, ::-1]) if self.mirror else shown

    @cached_property
    def _across(self) -> _Taps:
        return _taps(self.size[1], self.box[0], self.box[2], self.window[1])

    @cached_property
    def _down(self) -> _Taps:
        return _taps(self.size[0], self.box[1], self.box[3], self.window[0])


def draw_cut(
    size: tuple[int, int],
    rng: np.random.Generator,
    *,
    side: int,
    share: float,
    around: Sequence[float] | None = None,
    flip: float,
) -> Cut:
    """Draw what is shown of a photo.

    Args:
        size: (H, W) of the photo.
        rng: Source of randomness.
        side: Side of the model's frame.
        share: Long side of the scaled photo, as a share of `side`.
        around: Half-open box (x0, y0, x1, y1) of an object; the window is then cut around it, and
            `share` does not count.
        flip: Probability of mirroring.
    """
    height, width = size
    factor = side * share / max(height, width)
    centre: tuple[float, float] | None = None
    if around is not None:
        x0, y0, x1, y1 = around
        length = max(x1 - x0, y1 - y0) * rng.uniform(*_AROUND)
        factor = side / min(max(length, _LEAST_WINDOW), float(max(height, width)))
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


def _taps(size: int, start: float, stop: float, count: int) -> _Taps:
    """What `precompute_coeffs` and `normalize_coeffs_8bpc` of Pillow's Resample.c compute.

    Args:
        size: Input pixels.
        start: Where the first output pixel begins in the input.
        stop: Where the last one ends.
        count: Output pixels.
    """
    low, high = np.float32(start), np.float32(stop)  # Pillow's box is of C floats
    scale = float(high - low) / count
    support = max(scale, 1.0)
    centre = float(low) + (np.arange(count) + 0.5) * scale
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + support + 0.5).astype(np.int64), size)
    offsets = np.arange(math.ceil(support) * 2 + 1)
    away = np.abs((offsets + first[:, None] - centre[:, None] + 0.5) * (1.0 / support))
    weights = np.where((away < 1) & (offsets < (last - first)[:, None]), 1 - away, 0.0)
    total = np.zeros(count)
    for column in weights.T:  # one after the other, as in C: the last bit depends on it
        total += column
    weights /= np.where(total == 0, 1, total)[:, None]
    return _Taps(first, (0.5 + weights * (1 << _PLACES)).astype(np.int32))
