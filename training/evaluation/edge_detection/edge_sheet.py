"""Pictures of edges: photo, the model's edges, Canny's and the drawn boundaries side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from textsam.pictures.draw import encode_picture
from textsam.values.files import write_atomically

__all__ = ["EdgeGallery", "EdgePicture"]

_WIDTH = 320  # pixels of one picture
_GAP, _CAPTION = 8, 20


@dataclass(frozen=True, kw_only=True)
class EdgePicture:
    """One photo.

    Attributes:
        image_id: Its name.
        figure: What it is ranked by.
        image: (H, W, 3) uint8.
        maps: (H, W) 0 to 1 by name: edges of methods, and the share of annotators who drew one.
    """

    image_id: str
    figure: float
    image: NDArray[np.uint8]
    maps: dict[str, NDArray[np.float32]]


class EdgeGallery:
    """The `count` photos with the lowest figure so far and the `count` with the highest."""

    def __init__(self, count: int = 4) -> None:
        self.count = count
        self.lowest: list[EdgePicture] = []
        self.highest: list[EdgePicture] = []

    def add(self, picture: EdgePicture) -> None:
        """Offer a photo."""
        count = self.count
        self.lowest = sorted([*self.lowest, picture], key=lambda p: p.figure)[:count]
        self.highest = sorted([*self.highest, picture], key=lambda p: -p.figure)[:count]

    def write(self, path: Path, *, figure: str) -> None:
        """Write the sheet, a row for each photo; nothing without a photo."""
        chosen = {p.image_id: p for p in (*self.highest, *reversed(self.lowest))}
        if chosen:
            sheet = _draw(list(chosen.values()), figure=figure)
            write_atomically(path, encode_picture(sheet, path.suffix.lower()))


def _draw(pictures: Sequence[EdgePicture], *, figure: str) -> Image.Image:
    rows = [_cells(picture) for picture in pictures]
    columns = max(len(cells) for cells in rows)
    heights = [max(cell.height for cell in cells) + _CAPTION + _GAP for cells in rows]
    sheet = Image.new("RGB", (columns * (_WIDTH + _GAP) + _GAP, sum(heights) + _GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=_CAPTION - 6)
    top = _GAP
    for picture, cells, height in zip(pictures, rows, heights, strict=True):
        titles = [f"{picture.image_id}: {figure} {picture.figure:.3f}", *picture.maps]
        for column, (cell, title) in enumerate(zip(cells, titles, strict=True)):
            left = _GAP + column * (_WIDTH + _GAP)
            pen.text((left, top), title, fill="black", font=font)
            sheet.paste(cell, (left, top + _CAPTION))
        top += height
    return sheet


def _cells(picture: EdgePicture) -> list[Image.Image]:
    """The photo and its maps, dark on white, each `_WIDTH` pixels wide."""
    inked = [Image.fromarray((255 * (1 - m)).astype(np.uint8)) for m in picture.maps.values()]
    height = max(1, round(_WIDTH * picture.image.shape[0] / picture.image.shape[1]))
    return [
        cell.convert("RGB").resize((_WIDTH, height), Image.Resampling.LANCZOS)
        for cell in (Image.fromarray(picture.image), *inked)
    ]
