"""What an index holds, and how much of what is nearest its search finds."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from textsam.search.engines.protocol import Engine
from textsam.search.spaces import SpaceName, VectorSpace
from textsam.search.where import Where

__all__ = ["IndexStats", "Recall", "measure_recall"]


@dataclass(frozen=True, kw_only=True)
class Recall:
    """A search beside the exact one, on rows of the index itself.

    Attributes:
        k: How many were asked for.
        queries: Number of rows that were asked for, drawn at random.
        recall: Share of the exact k nearest that the search found.
        seconds: Median of a search.
        exact_seconds: Median of an exact one, in the same run.
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
        engine: What the engine tells of itself.
        recall: By space; empty if it was not asked for.
    """

    rows: int
    datasets: Mapping[str, int]
    spaces: Mapping[SpaceName, VectorSpace]
    engine: Mapping[str, Any]
    recall: Mapping[SpaceName, Recall]


def measure_recall(engine: Engine, space: SpaceName, *, k: int, queries: int, seed: int) -> Recall:
    """Search for rows of the index with its search structure and without.

    A row finds itself, which is no feat: k + 1 are asked for, and the nearest of all left out.
    """
    vectors = engine.sample(space, queries, seed=seed)
    shares, fast, slow = [], [], []
    for vector in vectors[:, None]:
        start = time.perf_counter()
        [found] = engine.search(space, vector, k=k + 1, where=Where())
        middle = time.perf_counter()
        [nearest] = engine.search(space, vector, k=k + 1, where=Where(), exact=True)
        fast.append(middle - start)
        slow.append(time.perf_counter() - middle)
        own, *wanted = nearest.column("id").to_pylist()
        others = [name for name in found.column("id").to_pylist() if name != own][:k]
        if wanted:
            shares.append(len(set(wanted) & set(others)) / len(wanted))
    return Recall(
        k=k,
        queries=len(vectors),
        recall=float(np.mean(shares)) if shares else 1.0,
        seconds=float(np.median(fast)),
        exact_seconds=float(np.median(slow)),
    )
