"""Picture sheets: the worst and the best cases of a measurement, photo by photo, on one page.

    python -m training.evaluation.text dev/voc_val.parquet --sheet voc.png

What the model painted is tinted and outlined in vermilion, the truth is outlined in mint, a click
is a white dot. A figure says how much is wrong, a picture says what.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from textsam.pictures.contact_sheet import CELL, Cell, contact_sheet, fitted_size
from textsam.pictures.draw import PALETTE, encode_picture, overlay
from textsam.values.files import write_atomically
from textsam.values.rle import RLE, encode_mask

from ...data import Sample

__all__ = ["Case", "Gallery", "add_sheet_option", "draw_case", "draw_sheet", "write_sheet"]

Mask = NDArray[np.bool_]

_PREDICTION, _TRUTH = PALETTE[1], PALETTE[2]
_INK, _PAPER = (20, 20, 20), (255, 255, 255)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One measured mask.

    Attributes:
        figure: What it is ranked by.
        title: What was asked, for the caption.
        sample: The photo.
        prediction: What the model painted.
        truth: What it should have been.
        clicks: x, y of every click, original pixels.
    """

    figure: float
    title: str
    sample: Sample
    prediction: RLE
    truth: RLE
    clicks: tuple[tuple[float, float], ...] = ()


class Gallery:
    """The `count` worst and the `count` best cases so far; the others are not kept.

    Attributes:
        count: How many of either side.
        figure: What they are ranked by, for the headings; None to leave it to `write_sheet`.
        sides: Which of "lowest" and "highest" are drawn.
    """

    def __init__(
        self,
        count: int = 6,
        *,
        figure: str | None = None,
        sides: Sequence[str] = ("lowest", "highest"),
    ) -> None:
        if count < 1:
            raise ValueError(f"Gallery: got count={count}; wanted at least 1")
        self.count = count
        self.figure = figure
        self.sides = tuple(sides)
        self.worst: list[Case] = []
        self.best: list[Case] = []

    def add(
        self,
        figure: float,
        sample: Sample,
        prediction: Mask,
        truth: Mask,
        title: str,
        clicks: Sequence[tuple[float, float]] = (),
    ) -> None:
        """Offer a case, masks (H, W) bool; it is kept while it is among the worst or the best.

        Of equal figures the first stay, so the sheet does not depend on anything but the order.
        """
        low = len(self.worst) < self.count or figure < self.worst[-1].figure
        high = len(self.best) < self.count or figure > self.best[-1].figure
        if not (low or high):
            return
        case = Case(
            figure=figure,
            title=title,
            sample=sample,
            prediction=encode_mask(prediction),
            truth=encode_mask(truth),
            clicks=tuple(clicks),
        )
        if low:  # sorting is stable: an equal one that came later goes behind
            self.worst = sorted([*self.worst, case], key=lambda c: c.figure)[: self.count]
        if high:
            self.best = sorted([*self.best, case], key=lambda c: -c.figure)[: self.count]


def draw_case(case: Case, *, size: int = CELL) -> Image.Image:
    """Draw one case as RGB, its longer side `size` pixels."""
    picture = Image.fromarray(case.sample.image())
    if not case.prediction.is_empty:
        picture = overlay(np.asarray(picture), [case.prediction], colors=[_PREDICTION], dim=0)
    if not case.truth.is_empty:
        picture = overlay(np.asarray(picture), [case.truth], colors=[_TRUTH], alpha=0, dim=0)
    scale = size / max(picture.size)
    picture = picture.resize(fitted_size(picture.size, size), Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(picture)
    for x, y in case.clicks:
        middle = (x * scale, y * scale)
        pen.circle(middle, 5, fill=_PAPER, outline=_INK)
    return picture


def draw_sheet(rows: Mapping[str, Sequence[Case]], *, size: int = CELL) -> Image.Image:
    """Draw rows of cases, each under its heading.

    Args:
        rows: Heading -> cases from left to right; rows without a case are left out.
        size: Side of a cell, pixels.

    Returns:
        RGB picture, as wide as its longest row.

    Raises:
        ValueError: There is no case at all.
    """
    if not any(rows.values()):
        raise ValueError("draw_sheet: got no case; wanted at least one measured mask")
    cells = {
        heading: [
            Cell(
                picture=draw_case(case, size=size),
                caption=f"{case.figure:.3f}  {case.title}  ({case.sample.image_id})",
            )
            for case in cases
        ]
        for heading, cases in rows.items()
    }
    return contact_sheet(cells, size=size)


def write_sheet(path: Path | None, galleries: Mapping[str, Gallery], *, figure: str) -> None:
    """Write the sheet of all sets measured so far; nothing without a path or without a case.

    Args:
        path: A picture file; it is complete or not there at all.
        galleries: By the name of the set.
        figure: What the figure is, for the headings of galleries that do not say.
    """
    rows = {
        f"{name}: {side} {gallery.figure or figure}": cases
        for name, gallery in galleries.items()
        for side, cases in (("lowest", gallery.worst), ("highest", gallery.best))
        if side in gallery.sides
    }
    if path is None or not any(rows.values()):
        return
    write_atomically(path, encode_picture(draw_sheet(rows), path.suffix.lower()))


def add_sheet_option(parser: argparse.ArgumentParser, figure: str) -> None:
    """Add `--sheet F.png`."""
    parser.add_argument(
        "--sheet",
        type=_picture_path,
        metavar="F.png",
        help=f"also draw the photos with the lowest and highest {figure}: prediction vermilion, "
        "truth mint",
    )


def _picture_path(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise argparse.ArgumentTypeError(f"got {text!r}; wanted a picture file, e.g. sheet.png")
    return path
