"""Groups of masks that look the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from textsam.errors import PromptError
from textsam.inference.photo.prediction import joined
from textsam.search.exact import group_numbers, row_blocks, unit_rows

__all__ = ["Duplicates", "find_duplicates"]

# Cosine of vectors that are the same up to rounding: identical pixels, or a lossless copy.
_EXACT_COSINE = 0.9999


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """A group of masks, connected by pairs with a high cosine.

    Attributes:
        rows: At least two row numbers, ascending.
        min_cosine: The lowest cosine among the pairs that connect the group.
        exact: Whether all these pairs are the same up to rounding.
    """

    rows: tuple[int, ...]
    min_cosine: float
    exact: bool


def find_duplicates(
    vectors: npt.ArrayLike, *, threshold: float = 0.97, photos: Sequence[Any] | None = None
) -> list[Duplicates]:
    """Group masks that look the same.

    Groups are connected components of the pairs above the threshold: a series of photos that
    changes little by little is one group, and a threshold that is too low joins everything. Look at
    the result for two or three thresholds; a good one depends on the space and the model. The
    default suits the space "clip" of `tiny`.

    Args:
        vectors: (N, D) of one space.
        threshold: Minimum cosine of a pair, in (0, 1].
        photos: The photo of each mask. Masks of one photo are then not compared: a flock holds
            many sheep that look alike, and none of them is a duplicate.

    Returns:
        Groups, sorted by `min_cosine`, highest first.

    Raises:
        PromptError: Invalid vectors or threshold, or a number of photos other than N.
    """
    if not 0 < threshold <= 1:
        raise PromptError(f"threshold={threshold}; wanted a cosine above 0 and at most 1")
    rows = unit_rows(vectors)
    photo_numbers = group_numbers(photos, len(rows), name="photos")
    pairs: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]] = []
    for start, block in row_blocks(rows):
        own_photo = photo_numbers[start : start + len(block), None]
        # The small slack keeps identical vectors at threshold 1 in spite of rounding.
        near = (block >= threshold - 1e-6) & (own_photo != photo_numbers[None])
        # Each pair once: the second row comes after the first.
        near &= np.arange(len(rows))[None] > np.arange(start, start + len(block))[:, None]
        first, second = np.nonzero(near)
        pairs.append((first + start, second, block[first, second]))
    if not pairs:
        return []
    first, second, cosines = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    roots = joined(len(rows), first, second)
    groups = []
    for root in np.unique(roots[first]):
        lowest = float(cosines[roots[first] == root].min())
        members = tuple(int(row) for row in np.flatnonzero(roots == root))
        groups.append(Duplicates(rows=members, min_cosine=lowest, exact=lowest >= _EXACT_COSINE))
    return sorted(groups, key=lambda group: -group.min_cosine)
