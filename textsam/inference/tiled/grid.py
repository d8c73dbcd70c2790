"""Where the tiles of a big photo lie: one size, evenly spread, each overlapping its neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral

from textsam.errors import PromptError
from textsam.inference.photo.windows import Window

__all__ = ["TileSettings", "common", "tile_windows"]

_LEAST_TILE = 64


@dataclass(frozen=True, kw_only=True)
class TileSettings:
    """How a big photo is cut.

    Attributes:
        tile: Side of a tile, original pixels. A model sees it at its own input size, so half the
            side shows things twice as large, and takes four times the time.
        overlap: Least pixels that neighbours share. What is not longer is whole in some tile.
        whole: Whether the whole photo is asked as well, shrunk to one tile, for things larger than
            a tile.

    Raises:
        PromptError: A tile below 64 pixels, or an overlap of more than half a tile.
    """

    tile: int = 1024
    overlap: int = 256
    whole: bool = True

    def __post_init__(self) -> None:
        """Refuse what makes no grid."""
        for name in ("tile", "overlap"):
            value = getattr(self, name)
            if not isinstance(value, Integral) or isinstance(value, bool):
                raise PromptError(f"{name} is {value!r}; wanted whole pixels, e.g. {name}=256")
        if self.tile < _LEAST_TILE:
            raise PromptError(f"tile is {self.tile}; wanted {_LEAST_TILE} pixels or more")
        if not 0 <= self.overlap <= self.tile // 2:
            raise PromptError(
                f"overlap is {self.overlap}; wanted 0 to {self.tile // 2}, half of tile={self.tile}"
            )


def tile_windows(size: tuple[int, int], settings: TileSettings) -> list[Window]:
    """Tiles that cover a photo (H, W), row by row; one, the photo itself, where it fits.

    All are of one size, but for a photo that is narrower than a tile.
    """
    rows = _starts(size[0], settings)
    columns = _starts(size[1], settings)
    height, width = min(size[0], settings.tile), min(size[1], settings.tile)
    return [Window(x, y, x + width, y + height) for y in rows for x in columns]


def common(a: Window, b: Window) -> Window | None:
    """What two windows share; None for nothing."""
    x0, y0, x1, y1 = max(a.x0, b.x0), max(a.y0, b.y0), min(a.x1, b.x1), min(a.y1, b.y1)
    return Window(x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def _starts(length: int, settings: TileSettings) -> list[int]:
    """First pixels of the tiles along one side, the last of which ends with the photo."""
    room = length - settings.tile
    if room <= 0:
        return [0]
    step = settings.tile - settings.overlap
    steps = -(-room // step)
    return [room * i // steps for i in range(steps + 1)]
