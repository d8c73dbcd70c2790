"""Exact cosines of many vectors with all of them, a block of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from textsam.errors import PromptError

__all__ = ["checked_vectors", "group_numbers", "nearest_rows", "row_blocks"]

Vectors = npt.NDArray[np.float32]

_BLOCK_BYTES = 64 * 1024 * 1024  # of cosines at once


def checked_vectors(vectors: npt.ArrayLike) -> Vectors:
    """Vectors (N, D) as float32 of length 1.

    Raises:
        PromptError: Another shape, a value that is no number, or a vector of length 0.
    """
    rows = np.asarray(vectors, dtype=np.float32)
    if rows.ndim != 2:
        raise PromptError(f"vectors have shape {rows.shape}; wanted (N, D), a row for each mask")
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    bad = np.flatnonzero(~((lengths[:, 0] > 0) & np.isfinite(lengths[:, 0])))
    if len(bad):
        raise PromptError(
            f"vector {bad[0]} has length {lengths[bad[0], 0]}, so it points nowhere; wanted "
            "embeddings of masks that are not empty"
        )
    return np.asarray(rows / lengths, dtype=np.float32)


def group_numbers(groups: Sequence[Any] | None, count: int, *, name: str) -> npt.NDArray[np.int64]:
    """Number the groups of N rows; without groups each row is its own.

    Raises:
        PromptError: Another number of them.
    """
    if groups is None:
        return np.arange(count)
    if len(groups) != count:
        raise PromptError(f"{len(groups)} {name} for {count} vectors; wanted one for each")
    places = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    return np.array([places[group] for group in groups], dtype=np.int64)


def row_blocks(vectors: Vectors) -> Iterator[tuple[int, Vectors]]:
    """First row and cosines (n, N) of each block of rows with all rows."""
    step = max(1, _BLOCK_BYTES // (4 * max(1, len(vectors))))
    for start in range(0, len(vectors), step):
        yield start, vectors[start : start + step] @ vectors.T


def nearest_rows(
    vectors: Vectors, count: int, groups: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], Vectors]:
    """The nearest rows of other groups, nearest first, for every row.

    Args:
        vectors: (N, D) of length 1.
        count: How many, k.
        groups: (N,) rows of one group are not neighbours; a row is of its own group.

    Returns:
        Row numbers and cosines, (N, k) each; -1 and NaN where other groups have fewer than k rows.
    """
    rows = np.full((len(vectors), count), -1, dtype=np.int64)
    near = np.full((len(vectors), count), np.nan, dtype=np.float32)
    most = min(count, len(vectors))
    for start, cosines in row_blocks(vectors):
        own = groups[start : start + len(cosines), None] == groups[None]
        cosines[own] = -np.inf
        best = np.argpartition(-cosines, most - 1, axis=1)[:, :most]
        values = np.take_along_axis(cosines, best, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        values = np.take_along_axis(values, order, axis=1)
        known = np.isfinite(values)
        part = slice(start, start + len(cosines))
        rows[part, :most] = np.where(known, np.take_along_axis(best, order, axis=1), -1)
        near[part, :most] = np.where(known, values, np.nan)
    return rows, near
