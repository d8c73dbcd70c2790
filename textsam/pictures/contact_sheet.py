"""Contact sheets: rows of small pictures under headings, and masks cut out for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from textsam.pictures.draw import PALETTE, overlay
from textsam.pictures.label_tags import load_font
from textsam.values.images import check_photo
from textsam.values.rle import RLE, decode_rle, encode_mask, rle_box
from textsam.values.rle_ops import crop_rle

CELL = 300  # pixels; six in a row fill a screen of 1920
_GAP = 8
_CAPTION, _HEADING = 18, 26
_INK, _PAPER = (20, 20, 20), (255, 255, 255)
_MIN_WINDOW = 24  # original pixels; a few pixels without surroundings show nothing


@dataclass(frozen=True, kw_only=True, eq=False)
class Cell:
    """One picture of a sheet, its longer side at most a cell's, and the line below it."""

    picture: Image.Image
    caption: str = ""


def fitted_size(picture_size: tuple[int, int], side: int) -> tuple[int, int]:
    """(width, height) of a picture whose longer side becomes `side` pixels."""
    scale = side / max(picture_size)
    width, height = picture_size
    return max(1, round(width * scale)), max(1, round(height * scale))


def shrunk_mask(rle: RLE, size: tuple[int, int]) -> RLE:
    """A mask at (width, height), where at least half of a pixel is covered.

    One that would vanish keeps every pixel that it touches.
    """
    full = Image.fromarray(decode_rle(rle) * np.uint8(255))
    coverage = np.asarray(full.resize(size, Image.Resampling.BOX))
    inside = coverage >= 128
    return encode_mask(inside if inside.any() else coverage > 0)


def mask_cell(
    image: NDArray[np.uint8],
    rle: RLE,
    *,
    caption: str = "",
    context: float = 1.6,
    size: int = CELL,
    color: tuple[int, int, int] = PALETTE[1],
) -> Cell:
    """A mask with an outline and some of its surroundings.

    Args:
        image: (H, W, 3) uint8 RGB.
        rle: The mask, of the photo's size.
        caption: The line below.
        context: Side of the window as a multiple of the longer side of the mask's box, at least 1.
            The window is cut at the photo's border.
        size: Longer side of the picture, pixels.
        color: Colour of the outline.

    Raises:
        ValueError: The photo is not of the mask's size, or the mask is empty.
    """
    check_photo(image, rle.size)
    if rle.is_empty:
        raise ValueError("mask_cell: the mask is empty, so there is nothing to show")
    x0, y0, x1, y1 = (int(value) for value in rle_box(rle))
    side = max(_MIN_WINDOW, round(max(x1 - x0, y1 - y0) * context))
    left, right = _span(x0, x1, side, image.shape[1])
    top, bottom = _span(y0, y1, side, image.shape[0])
    wanted = fitted_size((right - left, bottom - top), size)
    # Enlarged before it is drawn on, so that a small thing gets a fine outline too.
    cut = Image.fromarray(image[top:bottom, left:right]).resize(wanted, Image.Resampling.LANCZOS)
    inside = decode_rle(crop_rle(rle, (left, top, right, bottom)))
    share = Image.fromarray(inside.astype(np.float32)).resize(wanted, Image.Resampling.BILINEAR)
    drawn = encode_mask(np.asarray(share) > 0.5)
    picture = overlay(np.asarray(cut), [drawn], colors=[color], alpha=0.12, dim=0.25)
    return Cell(picture=picture, caption=caption)


def contact_sheet(
    rows: Mapping[str, Sequence[Cell]], *, size: int = CELL, columns: int | None = None
) -> Image.Image:
    """Lay cells out in rows, each under its heading; "" takes no room for a heading.

    With `columns`, a longer row continues below. The RGB picture is as wide as its longest row.

    Raises:
        ValueError: There is no cell at all, or columns is not positive.
    """
    if columns is not None and columns < 1:
        raise ValueError(f"contact_sheet: columns={columns}; wanted at least 1")
    lines = list(_lines(rows, columns))
    if not lines:
        raise ValueError("contact_sheet: got no cell; wanted at least one picture")
    heights = [size + _CAPTION + _GAP + (_HEADING if heading else 0) for heading, _ in lines]
    width = max(len(cells) for _, cells in lines) * (size + _GAP) + _GAP
    sheet = Image.new("RGB", (width, sum(heights) + _GAP), _PAPER)
    pen = ImageDraw.Draw(sheet)
    top = _GAP
    for (heading, cells), height in zip(lines, heights, strict=True):
        first = top + (_HEADING if heading else 0)
        if heading:
            pen.text((_GAP, top), heading, fill=_INK, font=load_font(_HEADING - 8))
        for column, cell in enumerate(cells):
            left = _GAP + column * (size + _GAP)
            picture = cell.picture
            if max(picture.size) > size:
                picture = picture.resize(fitted_size(picture.size, size), Image.Resampling.LANCZOS)
            shift = (size - picture.width) // 2, (size - picture.height) // 2
            sheet.paste(picture, (left + shift[0], first + shift[1]))
            _write_caption(pen, (left, first + size + 2), cell.caption, size)
        top += height
    return sheet


def _lines(
    rows: Mapping[str, Sequence[Cell]], columns: int | None
) -> Iterator[tuple[str, Sequence[Cell]]]:
    """Heading and cells of each line; a row's second line has no heading."""
    for heading, cells in rows.items():
        step = columns or max(1, len(cells))
        for start in range(0, len(cells), step):
            yield ("" if start else heading), cells[start : start + step]


def _span(low: int, high: int, side: int, end: int) -> tuple[int, int]:
    """A span of length `side` in [0, end) that contains [low, high); shorter at the borders."""
    start = max(0, (low + high - side) // 2)
    return min(start, low), max(min(start + side, end), high)


def _write_caption(pen: ImageDraw.ImageDraw, place: tuple[int, int], text: str, width: int) -> None:
    """Write a line, cut at the end until it is at most `width` pixels long."""
    font = load_font(_CAPTION - 5)
    line = text
    while line and font.getbbox(line)[2] > width:
        text = text[:-1]
        line = text and text + "..."
    pen.text(place, line, fill=_INK, font=font)
