"""The maps of a phrase in the tiles, as one coarse map of the photo."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from textsam.values.geometry import Window

__all__ = ["TileMaps"]

_LONG_SIDE = 512  # cells of the photo's map


class TileMaps:
    """Takes one map after the other; where they overlap, the higher probability stays.

    Attributes:
        values: (h, w) float32 so far, covering the photo.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        """Begin with zeros.

        Args:
            size: (H, W) of the photo.
        """
        self._cell = max(1.0, max(size) / _LONG_SIDE)
        shape = tuple(max(1, round(side / self._cell)) for side in size)
        self.values: NDArray[np.float32] = np.zeros(shape, dtype=np.float32)

    def add(self, similarity: NDArray[np.float32], window: Window) -> None:
        """Put in the map (h, w) float32 of a window of the photo."""
        y0, y1 = _cells(window.y0, window.y1, self._cell, self.values.shape[0])
        x0, x1 = _cells(window.x0, window.x1, self._cell, self.values.shape[1])
        resized = Image.fromarray(similarity).resize((x1 - x0, y1 - y0), Image.Resampling.BILINEAR)
        place = self.values[y0:y1, x0:x1]
        np.maximum(place, np.asarray(resized), out=place)


def _cells(start: int, end: int, cell: float, limit: int) -> tuple[int, int]:
    """At least one cell."""
    first = min(int(start / cell), limit - 1)
    return first, min(limit, max(first + 1, round(end / cell)))
