"""Picture sheets: the cases with the lowest and the highest figures, on one page.

    python -m training.evaluation.text dev/voc_val.parquet --sheet voc.png

The prediction is tinted and outlined in vermilion, the truth is outlined in mint, a click is a
white dot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from textsam.pictures.contact_sheet import CELL, Cell, contact_sheet, fitted_size
from textsam.pictures.draw import PALETTE, encode_picture, overlay
from textsam.values.files import write_atomically
from textsam.values.rle import RLE, encode_mask

from ...data import Sample

_PREDICTION, _TRUTH = PALETTE[1], PALETTE[2]
_INK, _PAPER = (20, 20, 20), (255, 255, 255)


@dataclass(frozen=True, kw_only=True)
class MaskCase:
    """One measured mask."""

    figure: float  # what it is ranked by
    title: str  # what was asked, for the caption
    sample: Sample  # the photo
    prediction: RLE  # what the model painted
    truth: RLE  # what it should have been
    clicks: tuple[tuple[float, float], ...] = ()  # x, y of every click, original pixels

    @classmethod
    def of(
        cls,
        figure: float,
        sample: Sample,
        prediction: NDArray[np.bool_],
        truth: NDArray[np.bool_],
        title: str,
        clicks: Sequence[tuple[float, float]] = (),
    ) -> MaskCase:
        """A case from masks (H, W) bool."""
        return cls(
            figure=figure,
            title=title,
            sample=sample,
            prediction=encode_mask(prediction),
            truth=encode_mask(truth),
            clicks=tuple(clicks),
        )


class Gallery:
    """The `count` cases with the lowest `case.figure` so far, and the `count` with the highest.

    `figure` names what they are ranked by, for the headings; `sides` are those that are drawn.
    """

    def __init__(
        self, count: int = 6, *, figure: str = "", sides: Sequence[str] = ("lowest", "highest")
    ) -> None:
        if count < 1:
            raise ValueError(f"Gallery: got count={count}; wanted at least 1")
        self.count = count
        self.figure = figure
        self.sides = tuple(sides)
        self.lowest: list[Any] = []
        self.highest: list[Any] = []

    def add(self, case: Any) -> None:
        """Offer a case; it is kept while it is among the lowest or the highest."""
        # Sorting is stable: of equal figures the first stay, whatever comes later.
        self.lowest = sorted([*self.lowest, case], key=lambda c: c.figure)[: self.count]
        self.highest = sorted([*self.highest, case], key=lambda c: -c.figure)[: self.count]


def draw_case(case: MaskCase, *, size: int = CELL) -> Image.Image:
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
        pen.circle((x * scale, y * scale), 5, fill=_PAPER, outline=_INK)
    return picture


def write_sheet(path: Path | None, galleries: Mapping[str, Gallery]) -> None:
    """Write the sheet of all galleries so far, a row for each side; nothing without a path."""
    if path is None:
        return
    rows = {}
    for name, gallery in galleries.items():
        for side in gallery.sides:
            cases = gallery.lowest if side == "lowest" else gallery.highest
            rows[f"{name}: {side} {gallery.figure}"] = [
                Cell(
                    picture=draw_case(case),
                    caption=f"{case.figure:.3f}  {case.title}  ({case.sample.image_id})",
                )
                for case in cases
            ]
    write_cells(path, rows)


def write_cells(path: Path, rows: Mapping[str, Sequence[Cell]]) -> None:
    """Write rows of cells, each under its heading; nothing without a cell."""
    if any(rows.values()):
        picture = contact_sheet(rows)
        write_atomically(path, encode_picture(picture, path.suffix.lower()))
