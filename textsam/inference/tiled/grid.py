"""Tiles of a big photo, and the map of a phrase that is put together from its tiles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from textsam.values.geometry import Window
from textsam.values.settings import TileSettings

__all__ = ["TileMaps", "tile_windows"]

_LONG_SIDE = 512  # cells of the photo's map


def tile_windows(size: tuple[int, int], settings: TileSettings) -> list[Window]:
    """Tiles that cover a photo (H, W), row by row; the photo itself where it fits into one.

    All have the same size, except in a photo that is narrower than a tile.
    """
    rows, columns = (_starts(side, settings) for side in size)
    height, width = min(size[0], settings.tile), min(size[1], settings.tile)
    return [Window(x, y, x + width, y + height) for y in rows for x in columns]


def _starts(length: int, settings: TileSettings) -> list[int]:
    """First pixels of the tiles along one side, the last of which ends with the photo."""
    room = length - settings.tile
    if room <= 0:
        return [0]
    step = settings.tile - settings.overlap
    steps = -(-room // step)
    return [room * i // steps for i in range(steps + 1)]


class TileMaps:
    """The map of a phrase over a photo; where tiles overlap, the higher probability counts.

    Attributes:
        values: (h, w) float32 probability, covering the photo; 0 where no map was added.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        """Start a map of a photo of size (H, W)."""
        self._cell = max(1.0, max(size) / _LONG_SIDE)
        shape = tuple(max(1, round(side / self._cell)) for side in size)
        self.values: NDArray[np.float32] = np.zeros(shape, dtype=np.float32)

    def add(self, similarity: NDArray[np.float32], window: Window) -> None:
        """Add the map (h, w) float32 of a window of the photo."""
        height, width = self.values.shape
        y0, y1 = self._cells(window.y0, window.y1, height)
        x0, x1 = self._cells(window.x0, window.x1, width)
        resized = Image.fromarray(similarity).resize((x1 - x0, y1 - y0), Image.Resampling.BILINEAR)
        cells = self.values[y0:y1, x0:x1]
        np.maximum(cells, np.asarray(resized), out=cells)

    def _cells(self, start: int, end: int, count: int) -> tuple[int, int]:
        """First and last + 1 of the cells of a range of pixels, at least one."""
        first = min(int(start / self._cell), count - 1)
        return first, min(count, max(first + 1, round(end / self._cell)))
