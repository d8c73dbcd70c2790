"""The best columns, against sorting everything."""

from __future__ import annotations

import numpy as np
import pytest

from textsam.search.uses.neighbours import best_columns


@pytest.mark.parametrize("k", [1, 5, 40])
def test_best_columns(k: int) -> None:
    """Ties too: small whole numbers, so that many values are equal."""
    values = np.random.default_rng(0).integers(-2, 3, (4, 25)).astype(np.float32)
    columns = best_columns(values, k)
    best = np.take_along_axis(values, columns, axis=1)
    np.testing.assert_array_equal(best, -np.sort(-values, axis=1)[:, :k])
    assert all(len(set(own)) == min(k, 25) for own in columns.tolist())


def test_no_columns() -> None:
    assert best_columns(np.zeros((2, 0), np.float32), 4).shape == (2, 0)
