"""Where the tiles of a big photo lie: one size, evenly spread, each overlapping its neighbours."""

from __future__ import annotations

from textsam.values.geometry import Window
from textsam.values.settings import TileSettings

__all__ = ["tile_windows"]


def tile_windows(size: tuple[int, int], settings: TileSettings) -> list[Window]:
    """Tiles that cover a photo (H, W), row by row; one, the photo itself, where it fits.

    All are of one size, but for a photo that is narrower than a tile.
    """
    rows = _starts(size[0], settings)
    columns = _starts(size[1], settings)
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
