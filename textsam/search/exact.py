"""The nearest vectors by comparing with every one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["nearest"]

FloatArray = npt.NDArray[np.float32]

# Products of a block of rows with all queries; 64 MB for 160 queries.
_ROWS = 100_000


def nearest(
    matrix: FloatArray, queries: FloatArray, k: int
) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """The k rows of the highest dot product with each query, highest first.

    Equal products stand in order of their rows.

    Args:
        matrix: (N, D).
        queries: (Q, D).
        k: At least 1.

    Returns:
        Rows (Q, min(k, N)) and products, the same shape.
    """
    rows = np.zeros((len(queries), 0), dtype=np.int64)
    products = np.zeros((len(queries), 0), dtype=np.float32)
    for start in range(0, len(matrix), _ROWS):
        block = queries @ matrix[start : start + _ROWS].T
        here = _best(block, k)
        rows = np.concatenate([rows, here + start], axis=1)
        products = np.concatenate([products, np.take_along_axis(block, here, axis=1)], axis=1)
        keep = _best(products, k)
        rows = np.take_along_axis(rows, keep, axis=1)
        products = np.take_along_axis(products, keep, axis=1)
    return rows, products


def _best(values: FloatArray, k: int) -> npt.NDArray[np.int64]:
    """Columns of the k highest of each row, highest first."""
    count = values.shape[1]
    if k >= count:
        return np.argsort(-values, axis=1, kind="stable")
    chosen = np.sort(np.argpartition(-values, k - 1, axis=1)[:, :k], axis=1)
    order = np.argsort(-np.take_along_axis(values, chosen, axis=1), axis=1, kind="stable")
    return np.take_along_axis(chosen, order, axis=1)
