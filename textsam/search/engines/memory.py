"""Rows in the memory of this process, searched by comparing with every one: `memory://`.

Exact, and fast enough up to some 100,000 rows; what the other engines are measured against. Gone
when the process ends: `MaskIndex.export` keeps it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from textsam.errors import require
from textsam.search.engines.protocol import COSINE
from textsam.search.exact import nearest
from textsam.search.records import ROW_COLUMNS, read_vectors, spaces_of
from textsam.search.spaces import SpaceName, VectorSpace
from textsam.search.where import Where

__all__ = ["MemoryEngine"]

BoolArray = npt.NDArray[np.bool_]


class MemoryEngine:
    """See `Engine`. A write makes a new table; readers go on with the one that they have."""

    def __init__(self) -> None:
        """Begin empty."""
        require("pyarrow", "search")
        self._table: Any = None
        self._writing = threading.Lock()

    def spaces(self) -> Mapping[SpaceName, VectorSpace]:
        """See `Engine`."""
        return {} if self._table is None else spaces_of(self._table.schema)

    def add(self, rows: Any) -> int:
        """See `Engine`."""
        pa = require("pyarrow", "search")
        with self._writing:
            if self._table is None:
                self._table = rows.combine_chunks()
                return int(rows.num_rows)
            known = set(self._table.column("id").to_pylist())
            new = [i for i, name in enumerate(rows.column("id").to_pylist()) if name not in known]
            if new:
                self._table = pa.concat_tables([self._table, rows.take(new)]).combine_chunks()
            return len(new)

    def search(
        self,
        space: SpaceName,
        vectors: npt.NDArray[np.float32],
        *,
        k: int,
        where: Where,
        exact: bool = False,
    ) -> Sequence[Any]:
        """See `Engine`; always exact."""
        pa = require("pyarrow", "search")
        table = self._table
        matrix = read_vectors(table, space)
        chosen = np.arange(len(matrix))
        if not where.is_open:
            chosen = np.flatnonzero(_meant(table, where))
            matrix = matrix[chosen]
        rows, products = nearest(matrix, vectors, k)
        shown = table.select(ROW_COLUMNS)
        return [
            shown.take(chosen[own]).append_column(COSINE, pa.array(cosines))
            for own, cosines in zip(rows, products, strict=True)
        ]

    def read(self, columns: Sequence[str], *, where: Where, batch: int) -> Iterator[Any]:
        """See `Engine`."""
        if self._table is not None:
            yield from _filtered(self._table, where).select(columns).to_batches(batch)

    def sample(self, space: SpaceName, count: int, *, seed: int) -> npt.NDArray[np.float32]:
        """See `Engine`."""
        vectors = read_vectors(self._table, space)
        drawn = np.random.default_rng(seed).permutation(len(vectors))[:count]
        return vectors[drawn]

    def delete(self, where: Where) -> int:
        """See `Engine`."""
        pa = require("pyarrow", "search")
        with self._writing:
            if self._table is None:
                return 0
            meant = _meant(self._table, where)
            self._table = self._table.filter(pa.array(~meant)).combine_chunks()
            return int(meant.sum())

    def count(self, where: Where) -> int:
        """See `Engine`."""
        return 0 if self._table is None else int(_meant(self._table, where).sum())

    def compact(self) -> None:
        """There is nothing to do."""

    def describe(self) -> Mapping[str, Any]:
        """See `Engine`."""
        return {"engine": "memory", "indexes": {}}

    def close(self) -> None:
        """Free the memory."""
        self._table = None


def _filtered(table: Any, where: Where) -> Any:
    pa = require("pyarrow", "search")
    return table if where.is_open else table.filter(pa.array(_meant(table, where)))


def _meant(table: Any, where: Where) -> BoolArray:
    """(N,) whether a row meets every condition."""
    pa, pc = require("pyarrow", "search"), require("pyarrow.compute", "search")
    meant = np.ones(table.num_rows, dtype=np.bool_)

    def among(column: str, values: Sequence[str | None]) -> BoolArray:
        # Without skip_nulls a None among the values finds the nulls of the column.
        found = pc.is_in(table.column(column), value_set=pa.array(values, type=pa.string()))
        array: BoolArray = found.to_numpy()
        return array

    for column, values in where.lists.items():
        meant &= among(column, values)
    if where.not_images is not None:
        meant &= ~among("image", where.not_images)
    for column, low, high in (
        ("area", where.min_area, where.max_area),
        ("aspect", where.min_aspect, where.max_aspect),
    ):
        numbers = table.column(column).to_numpy()
        meant &= numbers >= (-np.inf if low is None else low)
        meant &= numbers <= (np.inf if high is None else high)
    return meant
