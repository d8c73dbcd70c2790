"""The exact search, against sorting everything."""

from __future__ import annotations

import numpy as np
import pytest

from textsam.search import exact
from textsam.search.exact import nearest


@pytest.mark.parametrize("rows", [3, 7, 1000])
@pytest.mark.parametrize("k", [1, 5, 40])
def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch, rows: int, k: int) -> None:
    """Ties too: small whole numbers, so that many products are equal and exact."""
    monkeypatch.setattr(exact, "_BLOCK_ROWS", rows)
    rng = np.random.default_rng(0)
    matrix = rng.integers(-2, 3, (25, 6)).astype(np.float32)
    queries = rng.integers(-2, 3, (4, 6)).astype(np.float32)
    found, products = nearest(matrix, queries, k)
    wanted = np.sort(-(queries @ matrix.T), axis=1)[:, :k]
    np.testing.assert_array_equal(-products, wanted)
    np.testing.assert_array_equal(np.take_along_axis(queries @ matrix.T, found, axis=1), products)
    assert all(len(set(own)) == min(k, 25) for own in found.tolist())


def test_no_rows() -> None:
    found, products = nearest(np.zeros((0, 3), np.float32), np.ones((2, 3), np.float32), 4)
    assert found.shape == products.shape == (2, 0)
