"""Contact sheets of duplicates, label errors and clusters: one row of masks for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from PIL import Image

from textsam.pictures.contact_sheet import CELL, Cell, contact_sheet
from textsam.search.uses.clusters import Cluster
from textsam.search.uses.neighbours import Duplicates, Suspect

# Makes the picture of a row number, e.g. `mask_cell(photo_of(row), rle_of(row), caption=...)`.
Show: TypeAlias = Callable[[int], Cell]


def duplicate_sheet(
    groups: Sequence[Duplicates], show: Show, *, max_masks: int = 6, size: int = CELL
) -> Image.Image:
    """Draw each group of duplicates, at most `max_masks` masks of it."""
    headings = [f"{len(g.rows)} masks, cosine {g.min_cosine:.4f} and above" for g in groups]
    return _sheet(headings, [group.rows[:max_masks] for group in groups], show, size)


def suspect_sheet(
    suspects: Sequence[Suspect], show: Show, *, max_masks: int = 5, size: int = CELL
) -> Image.Image:
    """Draw each suspect followed by at most `max_masks` of its neighbours."""
    headings = [
        f"labelled {s.label!r}, its neighbours say {s.suggestion!r} "
        f"({s.suggestion_share:.0%} against {s.label_share:.0%})"
        for s in suspects
    ]
    return _sheet(headings, [(s.row, *s.neighbours[:max_masks]) for s in suspects], show, size)


def cluster_sheet(
    clusters: Sequence[Cluster], show: Show, *, max_masks: int = 8, size: int = CELL
) -> Image.Image:
    """Draw the most typical masks of each cluster, at most `max_masks` of them."""
    headings = []
    for cluster in clusters:
        names = ", ".join(name for name, _ in cluster.names)
        headings.append(f"{len(cluster.rows)} masks" + (f": {names}?" if names else ""))
    return _sheet(headings, [cluster.rows[:max_masks] for cluster in clusters], show, size)


def _sheet(
    headings: Sequence[str], rows: Sequence[Sequence[int]], show: Show, size: int
) -> Image.Image:
    """One line of cells per heading; numbered, since two headings may read the same."""
    cells = {
        f"{number}. {heading}": [show(row) for row in line]
        for number, (heading, line) in enumerate(zip(headings, rows, strict=True), 1)
    }
    return contact_sheet(cells, size=size)
