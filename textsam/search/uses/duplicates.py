"""Masks that a collection holds more than once, or almost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from textsam.errors import PromptError
from textsam.inference.photo.postprocess import joined
from textsam.search.uses.blocks import checked_vectors, group_numbers, row_blocks

__all__ = ["DUPLICATE", "Duplicates", "find_duplicates"]

# Cosine of what is the same up to rounding: the same pixels, or their lossless copy.
DUPLICATE = 0.9999


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """Masks that are all joined by pairs alike enough.

    Attributes:
        rows: At least two row numbers, rising.
        least: The lowest cosine of the pairs that join them.
        exact: Whether every such pair is the same up to rounding.
    """

    rows: tuple[int, ...]
    least: float
    exact: bool


def find_duplicates(
    vectors: npt.ArrayLike,
    *,
    threshold: float = 0.97,
    photos: Sequence[Any] | None = None,
) -> list[Duplicates]:
    """Group masks that look the same.

    Pairs alike enough are joined, and so is what is joined with one of them: a series of photos
    that changes little by little is one group, and a threshold that is too low joins everything.
    Look at the result at two or three thresholds; where they lie depends on the space and on the
    model, and the default suits `tiny`'s space "clip".

    Args:
        vectors: (N, D) of one space.
        threshold: Least cosine of a pair, in (0, 1].
        photos: Name of each mask's photo; masks of one photo are then not compared, since a flock
            holds many sheep that look alike and none is a duplicate.

    Returns:
        Groups, the one with the highest `least` first.

    Raises:
        PromptError: Vectors, photos or threshold that cannot be meant.
    """
    if not 0 < threshold <= 1:
        raise PromptError(f"threshold={threshold}; wanted a cosine above 0 and at most 1")
    rows = checked_vectors(vectors)
    own = group_numbers(photos, len(rows), name="photos")
    first: list[npt.NDArray[np.int64]] = []
    second: list[npt.NDArray[np.int64]] = []
    cosines: list[npt.NDArray[np.float32]] = []
    for start, block in row_blocks(rows):
        # Rounding must not lose the pair of a vector with itself at threshold 1.
        near = (block >= threshold - 1e-6) & (own[start : start + len(block), None] != own[None])
        near &= np.arange(len(rows))[None] > np.arange(start, start + len(block))[:, None]
        a, b = np.nonzero(near)
        first.append(a + start)
        second.append(b)
        cosines.append(block[a, b])
    if not first:
        return []
    a, b, values = np.concatenate(first), np.concatenate(second), np.concatenate(cosines)
    lowest = joined(len(rows), a, b)
    found = []
    for root in np.unique(lowest[a]):
        inside = values[lowest[a] == root]
        found.append(
            Duplicates(
                rows=tuple(int(row) for row in np.flatnonzero(lowest == root)),
                least=float(inside.min()),
                exact=bool(inside.min() >= DUPLICATE),
            )
        )
    return sorted(found, key=lambda group: -group.least)
