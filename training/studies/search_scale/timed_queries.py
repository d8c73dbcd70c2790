"""Queries to an index, timed in a process that does nothing else, so that its memory is theirs."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from textsam.search.exact import nearest
from textsam.search.index import MaskIndex
from textsam.search.records import read_vectors
from textsam.search.spaces import SpaceName
from textsam.search.where import Where

from ...memory import peak_bytes

__all__ = ["Asked", "ask_elsewhere"]

FloatArray = npt.NDArray[np.float32]

_WARM = 5  # searches before the clock counts: files are opened, caches filled


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What came of it.

    Attributes:
        found: Ids by space, k for each query, best first.
        seconds: By space, of each query.
        peak: Highest resident size of the process, MiB.
    """

    found: Mapping[SpaceName, list[list[str]]]
    seconds: Mapping[SpaceName, list[float]]
    peak: float


def ask_elsewhere(
    uri: str,
    queries: Mapping[SpaceName, FloatArray],
    *,
    k: int,
    way: str,
    datasets: list[str] | None = None,
) -> Asked:
    """Put queries, one by one, to an index in a fresh process.

    Args:
        uri: The index.
        queries: (Q, width) by space.
        k: How many each shall find.
        way: "index"; "scan", the engine comparing with all rows; "numpy", all vectors in memory,
            compared with one query after the other.
        datasets: Only rows of these.
    """
    with _fresh().Pool(1) as pool:
        return pool.apply(_ask, (uri, dict(queries), k, way, datasets))


def _fresh() -> Any:
    """How processes begin: with nothing done and, where that goes, the slow imports behind them."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lance_namespace", "pandas", "textsam.search.index"])
    return context


def _ask(
    uri: str, queries: dict[SpaceName, FloatArray], k: int, way: str, datasets: list[str] | None
) -> Asked:
    where = Where(datasets=datasets)
    found: dict[SpaceName, list[list[str]]] = {}
    seconds: dict[SpaceName, list[float]] = {}
    with MaskIndex.open(uri) as index:
        for space, vectors in queries.items():
            search = _in_memory(index, space) if way == "numpy" else None
            found[space], seconds[space] = [], []
            for number, vector in enumerate([*vectors[:_WARM], *vectors]):
                start = time.perf_counter()
                if search is not None:
                    ids = search(vector, k)
                else:
                    results = index.search(
                        vector=vector, k=k, space=space, where=where, exact=way == "scan"
                    )
                    ids = results.table.column("id").to_pylist()
                if number >= min(_WARM, len(vectors)):
                    seconds[space].append(time.perf_counter() - start)
                    found[space].append(ids)
    return Asked(found=found, seconds=seconds, peak=peak_bytes() / 2**20)


def _in_memory(index: MaskIndex, space: SpaceName) -> Any:
    """The plainest exact search that there is."""
    ids: list[str] = []
    matrix = np.empty((index.count(), index.spaces[space].width), dtype=np.float32)
    for batch in index.engine.read(["id", space], where=Where(), batch=8_192):
        matrix[len(ids) : len(ids) + batch.num_rows] = read_vectors(batch, space)
        ids += batch.column("id").to_pylist()

    def search(vector: FloatArray, k: int) -> list[str]:
        return [ids[row] for row in nearest(matrix, vector[None], k)[0][0]]

    return search
