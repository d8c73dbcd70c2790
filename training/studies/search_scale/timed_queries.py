"""Queries to an index, timed in a process that does nothing else, so that its memory is theirs."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from textsam.search.index import MaskIndex
from textsam.search.records import SpaceName, read_vectors
from textsam.search.uses.neighbours import best_columns
from textsam.search.where import Where

from ...peak_memory import peak_bytes
from .synthetic_rows import FloatArray

K = 10  # rows that are found for a query
_WARM = 5  # searches before the clock counts: files are opened, caches filled


@dataclass(frozen=True, kw_only=True)
class TimedQueries:
    """Results and times of queries."""

    # By space, the ids of k rows for each query, best first.
    ids: Mapping[SpaceName, list[list[str]]]
    seconds: Mapping[SpaceName, list[float]]  # by space, of each query
    peak: float  # highest resident size of the process, MiB


def time_queries(
    uri: str,
    queries: Mapping[SpaceName, FloatArray],
    *,
    way: str,
    datasets: list[str] | None = None,
) -> TimedQueries:
    """Put queries (Q, width), one by one, to an index in a fresh process.

    The way is "index"; "scan", the engine comparing with all rows; or "numpy", all vectors in
    memory, compared with one query after the other.
    """
    method = "spawn"
    if "forkserver" in multiprocessing.get_all_start_methods():
        method = "forkserver"
    context: Any = multiprocessing.get_context(method)
    if method == "forkserver":
        # The slow imports are done once, in the server that all processes fork from.
        context.set_forkserver_preload(["lance_namespace", "pandas", "textsam.search.index"])
    with context.Pool(1) as pool:
        result: TimedQueries = pool.apply(_query, (uri, dict(queries), way, datasets))
    return result


def _query(
    uri: str, queries: dict[SpaceName, FloatArray], way: str, datasets: list[str] | None
) -> TimedQueries:
    where = Where(datasets=datasets)
    ids: dict[SpaceName, list[list[str]]] = {}
    seconds: dict[SpaceName, list[float]] = {}
    with MaskIndex.open(uri) as index:
        for space, vectors in queries.items():
            if way == "numpy":
                search = _numpy_search(index, space)
            else:
                search = partial(_search_index, index, space, where=where, exact=way == "scan")
            ids[space], seconds[space] = [], []
            # The first queries run twice; only the second time is on the clock.
            for number, vector in enumerate([*vectors[:_WARM], *vectors]):
                start = time.perf_counter()
                row = search(vector)
                if number >= min(_WARM, len(vectors)):
                    seconds[space].append(time.perf_counter() - start)
                    ids[space].append(row)
    return TimedQueries(ids=ids, seconds=seconds, peak=peak_bytes() / 2**20)


def _search_index(
    index: MaskIndex, space: SpaceName, vector: FloatArray, *, where: Where, exact: bool
) -> list[str]:
    results = index.search(vector=vector, k=K, space=space, where=where, exact=exact)
    ids: list[str] = results.table.column("id").to_pylist()
    return ids


def _numpy_search(index: MaskIndex, space: SpaceName) -> Callable[[FloatArray], list[str]]:
    """The plainest exact search that there is: all vectors in one matrix."""
    ids: list[str] = []
    matrix = np.empty((index.count(), index.spaces[space].width), dtype=np.float32)
    for batch in index.engine.read(["id", space], where=Where(), batch=8_192):
        matrix[len(ids) : len(ids) + batch.num_rows] = read_vectors(batch, space)
        ids += batch.column("id").to_pylist()
    return lambda vector: [ids[row] for row in best_columns((matrix @ vector)[None], K)[0]]
