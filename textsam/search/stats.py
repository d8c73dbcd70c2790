"""Statistics of an index, and the recall of its search against the exact one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from textsam.search.lance_engine import LanceEngine
from textsam.search.records import SpaceName, VectorSpace
from textsam.search.where import Where

__all__ = ["IndexStats", "Recall", "measure_recall"]


@dataclass(frozen=True, kw_only=True)
class Recall:
    """How a search compares with the exact one, measured on rows of the index itself.

    Attributes:
        k: Number of rows per search.
        queries: Number of searches, each for a row drawn at random.
        recall: Share of the exact k nearest rows that the search returns, 0 to 1.
        seconds: Median time of a search.
        exact_seconds: Median time of an exact search, measured in the same run.
    """

    k: int
    queries: int
    recall: float
    seconds: float
    exact_seconds: float


@dataclass(frozen=True, kw_only=True)
class IndexStats:
    """What an index holds.

    Attributes:
        rows: Number of rows.
        datasets: Number of rows of each data set.
        spaces: Spaces of its vectors.
        engine: The engine's description of itself.
        recall: By space; empty if it was not measured.
    """

    rows: int
    datasets: Mapping[str, int]
    spaces: Mapping[SpaceName, VectorSpace]
    engine: Mapping[str, Any]
    recall: Mapping[SpaceName, Recall]


def measure_recall(
    engine: LanceEngine, space: SpaceName, *, k: int, queries: int, seed: int
) -> Recall:
    """Search for rows of the index with its search structure and without."""
    vectors = engine.sample(space, queries, seed=seed)
    shares, times, exact_times = [], [], []
    for vector in vectors:
        start = time.perf_counter()
        # One more than k, because each row finds itself, which shows nothing about the search.
        approximate = engine.search(space, vector, k=k + 1, where=Where())
        middle = time.perf_counter()
        nearest = engine.search(space, vector, k=k + 1, where=Where(), exact=True)
        times.append(middle - start)
        exact_times.append(time.perf_counter() - middle)
        own, *wanted = nearest.column("id").to_pylist()
        others = [row_id for row_id in approximate.column("id").to_pylist() if row_id != own][:k]
        if wanted:  # an index of one row has no neighbours to find
            shares.append(len(set(wanted) & set(others)) / len(wanted))
    return Recall(
        k=k,
        queries=len(vectors),
        recall=float(np.mean(shares)) if shares else 1.0,
        seconds=float(np.median(times)),
        exact_seconds=float(np.median(exact_times)),
    )
