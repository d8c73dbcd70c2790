"""Rows in the memory of this process, searched by comparing with every one: `memory://`.

Exact, fast enough for some 100,000 rows, and the reference for the other engines. Rows are lost
when the process ends; `MaskIndex.export` saves them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from textsam.errors import require
from textsam.search.exact import nearest
from textsam.search.records import (
    COSINE,
    ROW_COLUMNS,
    FloatArray,
    SpaceName,
    VectorSpace,
    read_vectors,
    spaces_of,
)
from textsam.search.where import Where

__all__ = ["MemoryEngine"]

BoolArray = npt.NDArray[np.bool_]


class MemoryEngine:
    """See `Engine`. A write replaces the table; readers keep the one that they started with."""

    uri = "memory://"

    def __init__(self) -> None:
        """Start empty."""
        require("pyarrow", "search")
        self._table: Any = None
        self._write_lock = threading.Lock()

    def spaces(self) -> Mapping[SpaceName, VectorSpace]:
        """See `Engine`."""
        return {} if self._table is None else spaces_of(self._table.schema)

    def add(self, rows: Any) -> int:
        """See `Engine`."""
        pa = require("pyarrow", "search")
        with self._write_lock:
            if self._table is None:
                self._table = rows.combine_chunks()
                return int(rows.num_rows)
            known = set(self._table.column("id").to_pylist())
            ids = rows.column("id").to_pylist()
            new = [place for place, row_id in enumerate(ids) if row_id not in known]
            if new:
                self._table = pa.concat_tables([self._table, rows.take(new)]).combine_chunks()
            return len(new)

    def search(
        self,
        space: SpaceName,
        vectors: FloatArray,
        *,
        k: int,
        where: Where,
        exact: bool = False,
    ) -> Sequence[Any]:
        """See `Engine`; always exact."""
        pa = require("pyarrow", "search")
        table = self._table
        matrix = read_vectors(table, space)
        matching = np.arange(len(matrix))
        if not where.matches_all:
            matching = np.flatnonzero(_matches(table, where))
            matrix = matrix[matching]
        rows, products = nearest(matrix, vectors, k)
        columns = table.select(ROW_COLUMNS)
        return [
            columns.take(matching[own]).append_column(COSINE, pa.array(cosines))
            for own, cosines in zip(rows, products, strict=True)
        ]

    def read(self, columns: Sequence[str], *, where: Where, batch: int) -> Iterator[Any]:
        """See `Engine`."""
        if self._table is None:
            return
        table = self._table
        if not where.matches_all:
            table = table.filter(require("pyarrow", "search").array(_matches(table, where)))
        yield from table.select(columns).to_batches(batch)

    def sample(self, space: SpaceName, count: int, *, seed: int) -> FloatArray:
        """See `Engine`."""
        vectors = read_vectors(self._table, space)
        return vectors[np.random.default_rng(seed).permutation(len(vectors))[:count]]

    def delete(self, where: Where) -> int:
        """See `Engine`."""
        pa = require("pyarrow", "search")
        with self._write_lock:
            if self._table is None:
                return 0
            matching = _matches(self._table, where)
            self._table = self._table.filter(pa.array(~matching)).combine_chunks()
            return int(matching.sum())

    def count(self, where: Where) -> int:
        """See `Engine`."""
        return 0 if self._table is None else int(_matches(self._table, where).sum())

    def compact(self) -> None:
        """Nothing to do."""

    def describe(self) -> Mapping[str, Any]:
        """See `Engine`."""
        return {"engine": "memory", "indexes": {}}

    def close(self) -> None:
        """Free the memory."""
        self._table = None


def _matches(table: Any, where: Where) -> BoolArray:
    """(N,) whether each row meets every condition."""
    pa, pc = require("pyarrow", "search"), require("pyarrow.compute", "search")
    matching = np.ones(table.num_rows, dtype=np.bool_)

    def is_in(column: str, values: Sequence[str | None]) -> BoolArray:
        # Without skip_nulls, a None among the values matches the nulls of the column.
        mask: BoolArray = pc.is_in(
            table.column(column), value_set=pa.array(values, type=pa.string())
        ).to_numpy()
        return mask

    for column, values in where.allowed_values.items():
        matching &= is_in(column, values)
    if where.not_images is not None:
        matching &= ~is_in("image", where.not_images)
    for column, low, high in (
        ("area", where.min_area, where.max_area),
        ("aspect", where.min_aspect, where.max_aspect),
    ):
        numbers = table.column(column).to_numpy()
        matching &= numbers >= (-np.inf if low is None else low)
        matching &= numbers <= (np.inf if high is None else high)
    return matching
