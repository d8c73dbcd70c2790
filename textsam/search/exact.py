"""Exact cosines between many vectors, one block of rows at a time.

Memory grows with the number of rows, not with its square. Search in memory, the recall of an index,
duplicates, label errors and clusters are all built on this.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from textsam.errors import PromptError

__all__ = ["group_numbers", "nearest", "nearest_of_other_groups", "row_blocks", "unit_rows"]

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

_BLOCK_ROWS = 100_000  # rows of the matrix that `nearest` multiplies at once
_BLOCK_BYTES = 64 * 1024 * 1024  # cosines that `row_blocks` computes at once


def nearest(matrix: FloatArray, queries: FloatArray, k: int) -> tuple[IntArray, FloatArray]:
    """The k rows with the highest dot product with each query, highest first.

    Rows with equal products keep their order.

    Args:
        matrix: (N, D).
        queries: (Q, D).
        k: At least 1.

    Returns:
        Row numbers (Q, min(k, N)) and products of the same shape.
    """
    rows = np.zeros((len(queries), 0), dtype=np.int64)
    products = np.zeros((len(queries), 0), dtype=np.float32)
    for start in range(0, len(matrix), _BLOCK_ROWS):
        block = queries @ matrix[start : start + _BLOCK_ROWS].T
        best = _best_columns(block, k)
        rows = np.concatenate([rows, best + start], axis=1)
        products = np.concatenate([products, np.take_along_axis(block, best, axis=1)], axis=1)
        # The best of this block compete with the best of all blocks before it.
        keep = _best_columns(products, k)
        rows = np.take_along_axis(rows, keep, axis=1)
        products = np.take_along_axis(products, keep, axis=1)
    return rows, products


def _best_columns(values: FloatArray, k: int) -> IntArray:
    """Columns of the k highest values of each row, highest first, equal ones in order."""
    count = values.shape[1]
    if k >= count:
        return np.argsort(-values, axis=1, kind="stable")
    # argpartition returns columns in any order; sorting them first makes the argsort break ties
    # by column.
    chosen = np.sort(np.argpartition(-values, k - 1, axis=1)[:, :k], axis=1)
    order = np.argsort(-np.take_along_axis(values, chosen, axis=1), axis=1, kind="stable")
    return np.take_along_axis(chosen, order, axis=1)


def unit_rows(vectors: npt.ArrayLike) -> FloatArray:
    """Vectors (N, D) as float32 of length 1."""
    rows = np.asarray(vectors, dtype=np.float32)
    if rows.ndim != 2:
        raise PromptError(f"vectors have shape {rows.shape}; wanted (N, D), a row for each mask")
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    bad = np.flatnonzero(~((lengths[:, 0] > 0) & np.isfinite(lengths[:, 0])))
    if len(bad):
        raise PromptError(
            f"vector {bad[0]} has length {lengths[bad[0], 0]}, so it has no direction; wanted "
            "embeddings of masks that are not empty"
        )
    return np.asarray(rows / lengths, dtype=np.float32)


def group_numbers(groups: Sequence[Any] | None, count: int, *, name: str) -> IntArray:
    """Number the groups of N rows from 0; without groups every row is its own group."""
    if groups is None:
        return np.arange(count)
    if len(groups) != count:
        raise PromptError(f"{len(groups)} {name} for {count} vectors; wanted one for each")
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    return np.array([numbers[group] for group in groups], dtype=np.int64)


def row_blocks(vectors: FloatArray) -> Iterator[tuple[int, FloatArray]]:
    """First row number and cosines (n, N) of each block of n rows with all N rows."""
    step = max(1, _BLOCK_BYTES // (4 * max(1, len(vectors))))
    for start in range(0, len(vectors), step):
        yield start, vectors[start : start + step] @ vectors.T


def nearest_of_other_groups(
    vectors: FloatArray, k: int, groups: IntArray
) -> tuple[IntArray, FloatArray]:
    """The nearest rows of other groups for every row, nearest first.

    Args:
        vectors: (N, D) of length 1.
        k: Neighbours of each row.
        groups: (N,) group of each row; a row is never its own neighbour.

    Returns:
        Row numbers and cosines, (N, k) each; -1 and NaN where other groups have fewer than k rows.
    """
    neighbours = np.full((len(vectors), k), -1, dtype=np.int64)
    neighbour_cosines = np.full((len(vectors), k), np.nan, dtype=np.float32)
    width = min(k, len(vectors))
    for start, cosines in row_blocks(vectors):
        part = slice(start, start + len(cosines))
        cosines[groups[part, None] == groups[None]] = -np.inf
        best = _best_columns(cosines, width)
        values = np.take_along_axis(cosines, best, axis=1)
        # Rows of the same group can be among the best only where nothing else is left.
        valid = np.isfinite(values)
        neighbours[part, :width] = np.where(valid, best, -1)
        neighbour_cosines[part, :width] = np.where(valid, values, np.nan)
    return neighbours, neighbour_cosines
