"""Rows in a Lance table: a folder, or an object store that many machines read and write.

Every write is one commit of Lance: new files, then a manifest that names them, put in place only if
no other commit came first. A write that is killed before that has no effect, and no reader sees the
files that it left. Two writers cannot both add the same rows: `id` is the table's primary key, so
the later commit is checked against the earlier one and tried again.

The search structure is IVF_RQ: rows are sorted into cells around centres and stored with one bit
per dimension, and the nearest of them are compared exactly (docs/search_engines.md).
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import numpy as np

from textsam.errors import require
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

__all__ = ["CELLS_SEARCHED", "CELL_ROWS", "COMPARED", "INDEX_FROM", "LanceEngine", "cells_for"]

_log = logging.getLogger(__name__)

TABLE = "masks"
# The next four are chosen by the measurements in docs/search_engines.md.
INDEX_FROM = 10_000  # rows; with fewer, comparing with all of them takes a few milliseconds
CELL_ROWS = 1_000  # rows per cell, approximately
CELLS_SEARCHED = 24  # cells that a query reads, the nearest ones
COMPARED = 10  # compare this times k rows exactly,
_MIN_COMPARED = 100  # and at least the number for k = 10, for which the recall was measured
# Caches of index pages and file footers; a process that only searches stays far below 1 GB.
_INDEX_CACHE = 192 * 2**20
_FOOTER_CACHE = 64 * 2**20
# Old versions are kept this long for readers that still use them.
_KEEP_VERSIONS = timedelta(hours=1)
# Field metadata that makes a column the primary key of a Lance table.
_PRIMARY_KEY = {b"lance-schema:unenforced-primary-key": b"true"}


class LanceEngine:
    """See `Engine`."""

    def __init__(self, uri: str, *, storage_options: Mapping[str, str] | None = None) -> None:
        """Connect; the table is created by the first write.

        Args:
            uri: A folder, or `s3://`, `gs://`, `az://`.
            storage_options: Keys, region and endpoint of an object store, with Lance's names.
        """
        lancedb = require("lancedb", "search")
        self.uri = uri
        self.storage_options = dict(storage_options or {})
        self._db: Any = lancedb.connect(
            uri,
            storage_options=self.storage_options or None,
            # Zero: a reader sees everything that any process committed before the call.
            read_consistency_interval=timedelta(0),
            session=lancedb.Session(_INDEX_CACHE, _FOOTER_CACHE),
        )
        self._opened: Any = None

    def _table(self) -> Any:
        """The table; None until it is created."""
        if self._opened is None:
            try:
                self._opened = self._db.open_table(TABLE)
            except (ValueError, FileNotFoundError) as error:
                if "not found" not in str(error):
                    raise
        return self._opened

    def spaces(self) -> Mapping[SpaceName, VectorSpace]:
        """See `Engine`."""
        table = self._table()
        return {} if table is None else spaces_of(table.schema)

    def add(self, rows: Any) -> int:
        """See `Engine`."""
        table = self._table() or self._create(rows.schema)
        # An insert that skips known ids: the check and the write are one commit.
        merged = table.merge_insert("id").when_not_matched_insert_all().execute(rows)
        return int(merged.num_inserted_rows)

    def _create(self, schema: Any) -> Any:
        """Create the table, or open the one that another process has created meanwhile."""
        key = schema.get_field_index("id")
        schema = schema.set(key, schema.field(key).with_metadata(_PRIMARY_KEY))
        try:
            self._opened = self._db.create_table(TABLE, schema=schema)
        except ValueError as error:
            if "already exists" not in str(error):
                raise
            self._opened = self._db.open_table(TABLE)
        return self._opened

    def search(
        self,
        space: SpaceName,
        vectors: FloatArray,
        *,
        k: int,
        where: Where,
        exact: bool = False,
    ) -> Sequence[Any]:
        """See `Engine`."""
        sql = _sql_of(where)
        return [self._nearest(space, vector, k, sql, exact=exact) for vector in vectors]

    def _nearest(
        self, space: SpaceName, vector: FloatArray, k: int, sql: str | None, *, exact: bool
    ) -> Any:
        """The table of the rows nearest to one vector (width,)."""
        pa = require("pyarrow", "search")
        query = self._table().search(vector, vector_column_name=space)
        query = query.distance_type("cosine").limit(k).select([*ROW_COLUMNS, "_distance"])
        if sql is not None:
            query = query.where(sql, prefilter=True)
        if exact:
            query = query.bypass_vector_index()
        else:
            # 0 is no maximum: if fewer than k rows match in these cells, further cells are read.
            query = query.minimum_nprobes(CELLS_SEARCHED).maximum_nprobes(0)
            query = query.refine_factor(max(COMPARED, -(-_MIN_COMPARED // k)))
        rows = query.to_arrow()
        cosines = 1 - rows.column("_distance").to_numpy()
        return rows.select(ROW_COLUMNS).append_column(COSINE, pa.array(cosines, pa.float32()))

    def read(self, columns: Sequence[str], *, where: Where, batch: int) -> Iterator[Any]:
        """See `Engine`."""
        table = self._table()
        if table is None:
            return
        query, sql = table.search().select(list(columns)), _sql_of(where)
        yield from (query if sql is None else query.where(sql)).to_batches(batch)

    def sample(self, space: SpaceName, count: int, *, seed: int) -> FloatArray:
        """See `Engine`."""
        table = self._table()
        drawn = np.random.default_rng(seed).permutation(table.count_rows())[:count]
        rows = table.take_offsets(sorted(drawn.tolist())).select([space]).to_arrow()
        return read_vectors(rows, space)

    def delete(self, where: Where) -> int:
        """See `Engine`."""
        table = self._table()
        if table is None:
            return 0
        return int(table.delete(_sql_of(where) or "true").num_deleted_rows)

    def count(self, where: Where) -> int:
        """See `Engine`."""
        table = self._table()
        return 0 if table is None else int(table.count_rows(_sql_of(where)))

    def compact(self) -> None:
        """See `Engine`; builds the search structures once there are `INDEX_FROM` rows."""
        table = self._table()
        if table is None:
            return
        table.optimize(cleanup_older_than=_KEEP_VERSIONS)
        rows = table.count_rows()
        if rows < INDEX_FROM:
            return
        existing = {index.name for index in table.list_indices()}
        kinds = require("lancedb.index", "search")
        scalar = {"id": kinds.BTree(), "dataset": kinds.Bitmap(), "label": kinds.BTree()}
        for column, config in scalar.items():
            if f"{column}_idx" not in existing:
                table.create_index(column, config=config, name=f"{column}_idx")
        cells = cells_for(rows)
        for name, space in self.spaces().items():
            old = [index for index in existing if index.startswith(f"{name}_cells_")]
            # Built again once the table needs twice the cells: the centres no longer suit the rows.
            if not any(2 * _cells_of(index) > cells for index in old):
                self.build(name, space.width, cells)
                for index in old:
                    table.drop_index(index)

    def build(self, name: SpaceName, width: int, cells: int) -> None:
        """Build the search structure of a space; readers use the old one until it is dropped."""
        kinds = require("lancedb.index", "search")
        # One bit per dimension needs whole bytes, so other widths are stored unquantised.
        options = {"distance_type": "cosine", "num_partitions": cells}
        config = kinds.IvfFlat(**options) if width % 8 else kinds.IvfRq(**options, num_bits=1)
        _log.info("building %d cells for %s in %s", cells, name, self.uri)
        self._table().create_index(name, config=config, name=index_name(name, cells))

    def describe(self) -> Mapping[str, Any]:
        """See `Engine`."""
        table = self._table()
        indexes = {}
        for index in [] if table is None else table.list_indices():
            stats = table.index_stats(index.name)
            indexes[index.name] = {
                "kind": index.index_type,
                "rows": stats.num_indexed_rows,
                "rows_without": stats.num_unindexed_rows,
                "segments": stats.num_indices,
            }
        return {"engine": "lance", "uri": self.uri, "indexes": indexes}

    def close(self) -> None:
        """Release the table and the connection."""
        self._opened = self._db = None


def cells_for(rows: int) -> int:
    """Number of cells for a number of rows."""
    return max(1, math.ceil(rows / CELL_ROWS))


def index_name(space: SpaceName, cells: int) -> str:
    """Name of a search structure, which says how many cells it has."""
    return f"{space}_cells_{cells}"


def _cells_of(name: str) -> int:
    match = re.fullmatch(r".*_cells_(\d+)", name)
    return int(match[1]) if match else 0


def _sql_of(where: Where) -> str | None:
    """The conditions in the SQL that Lance filters by; None for no condition."""
    parts = [_in_list(column, values) for column, values in where.allowed_values.items()]
    if where.not_images is not None:
        parts.append(f"NOT {_in_list('image', where.not_images)}")
    # Lance compares a column only with numbers of its own type: areas are integers.
    parts += [] if where.min_area is None else [f"area >= {math.ceil(where.min_area)}"]
    parts += [] if where.max_area is None else [f"area <= {math.floor(where.max_area)}"]
    parts += [] if where.min_aspect is None else [f"aspect >= {float(where.min_aspect)!r}"]
    parts += [] if where.max_aspect is None else [f"aspect <= {float(where.max_aspect)!r}"]
    return " AND ".join(parts) or None


def _in_list(column: str, values: Sequence[str | None]) -> str:
    """A condition that a column has one of some values."""
    # In an SQL string literal only the quote itself is special, and written twice.
    quoted = ["'" + value.replace("'", "''") + "'" for value in values if value is not None]
    parts = [f"{column} IN ({', '.join(quoted)})"] if quoted else []
    parts += [f"{column} IS NULL"] if None in values else []  # IN never matches a null
    return f"({' OR '.join(parts)})"
