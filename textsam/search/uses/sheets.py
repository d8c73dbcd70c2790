"""Pictures of what the uses found, a row of masks for each finding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from PIL import Image

from textsam.pictures.contact_sheet import CELL, Cell, contact_sheet
from textsam.search.uses.clusters import Cluster
from textsam.search.uses.duplicates import Duplicates
from textsam.search.uses.label_errors import Suspect

__all__ = ["Show", "cluster_sheet", "duplicate_sheet", "suspect_sheet"]

# The picture of a row by its number, e.g. `mask_cell(image_of(row), rle_of(row), caption=...)`.
Show: TypeAlias = Callable[[int], Cell]


def duplicate_sheet(
    groups: Sequence[Duplicates], show: Show, *, most: int = 6, size: int = CELL
) -> Image.Image:
    """The masks of each group, at most `most` of them.

    Raises:
        ValueError: There is no group.
    """
    rows = {
        _numbered(number, f"{len(group.rows)} masks, cosine {group.least:.4f} and above"): [
            show(row) for row in group.rows[:most]
        ]
        for number, group in enumerate(groups)
    }
    return contact_sheet(rows, size=size)


def suspect_sheet(
    suspects: Sequence[Suspect], show: Show, *, most: int = 5, size: int = CELL
) -> Image.Image:
    """Each suspect and, behind it, at most `most` of the neighbours that speak against its label.

    Raises:
        ValueError: There is no suspect.
    """
    rows = {
        _numbered(
            number,
            f"labelled {s.label!r}, its neighbours say {s.suggestion!r} "
            f"({s.other:.0%} against {s.share:.0%})",
        ): [show(row) for row in (s.row, *s.neighbours[:most])]
        for number, s in enumerate(suspects)
    }
    return contact_sheet(rows, size=size)


def cluster_sheet(
    clusters: Sequence[Cluster], show: Show, *, most: int = 8, size: int = CELL
) -> Image.Image:
    """The most typical masks of each cluster, at most `most` of them.

    Raises:
        ValueError: There is no cluster.
    """
    rows = {}
    for number, cluster in enumerate(clusters):
        names = ", ".join(name for name, _ in cluster.names)
        heading = f"{len(cluster.rows)} masks" + (f": {names}?" if names else "")
        rows[_numbered(number, heading)] = [show(row) for row in cluster.rows[:most]]
    return contact_sheet(rows, size=size)


def _numbered(number: int, heading: str) -> str:
    """Two findings may be the same in words, and a sheet's headings are not."""
    return f"{number + 1}. {heading}"
