"""Rows in a Lance table: a folder, or an object store that many machines read and write.

Every write is one commit of Lance: new files, then a manifest that names them, put in place only if
nobody was first. Killed before that, a write has not been; what it left behind no reader sees.
Two writers with the same rows cannot both add them: `id` is the table's primary key, so the later
commit is checked against the earlier one and tried again.

The search structure is IVF_RQ: cells around centres, in them one bit a dimension, and the nearest
of those compared exactly. docs/search_engines.md has what was measured, and against what.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

from textsam.errors import require
from textsam.search.engines.lance_sql import sql_of
from textsam.search.engines.protocol import COSINE
from textsam.search.records import ROW_COLUMNS, read_vectors, spaces_of
from textsam.search.spaces import SpaceName, VectorSpace
from textsam.search.where import Where

__all__ = ["CELL_ROWS", "LanceEngine", "cells_for"]

_log = logging.getLogger(__name__)

TABLE = "masks"
# Measured on mask vectors of `tiny`; see docs/search_engines.md.
INDEX_FROM = 10_000  # rows; below, comparing with all takes a few milliseconds
CELL_ROWS = 1_000  # rows of a cell, about
CELLS_SEARCHED = 24  # nearest cells that are looked into
COMPARED = 10  # times k rows are compared exactly, and for a small k
_LEAST_COMPARED = 100  # as many as for k = 10, whose recall is measured
# The caches of index pages and of file footers keep a process that queries far below 1 GB.
_INDEX_CACHE = 192 * 2**20
_FOOTER_CACHE = 64 * 2**20
# Versions that readers may still be at are kept so long.
_KEEP = timedelta(hours=1)
# What Lance lays the keys of the table under; see the module's docstring.
_PRIMARY = {b"lance-schema:unenforced-primary-key": b"true"}


class LanceEngine:
    """See `Engine`."""

    def __init__(self, uri: str, *, storage_options: Mapping[str, str] | None = None) -> None:
        """Connect; the table is made at the first write.

        Args:
            uri: A folder, or `s3://`, `gs://`, `az://`.
            storage_options: Keys, region and endpoint of an object store, as Lance takes them.

        Raises:
            MissingExtraError: lancedb is not installed.
        """
        lancedb = require("lancedb", "search")
        self.uri = uri
        self.storage_options = dict(storage_options or {})
        self._db: Any = lancedb.connect(
            uri,
            storage_options=self.storage_options or None,
            # A reader sees what was committed before it asked, by whichever process.
            read_consistency_interval=timedelta(0),
            session=lancedb.Session(_INDEX_CACHE, _FOOTER_CACHE),
        )
        self._opened: Any = None

    def _table(self) -> Any:
        """The table; None while there is none."""
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
        merged = table.merge_insert("id").when_not_matched_insert_all().execute(rows)
        return int(merged.num_inserted_rows)

    def _create(self, schema: Any) -> Any:
        """Make the table, or open the one that another process has made just now."""
        key = schema.get_field_index("id")
        schema = schema.set(key, schema.field(key).with_metadata(_PRIMARY))
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
        vectors: npt.NDArray[np.float32],
        *,
        k: int,
        where: Where,
        exact: bool = False,
    ) -> Sequence[Any]:
        """See `Engine`."""
        condition = sql_of(where)
        return [self._nearest(space, vector, k, condition, exact=exact) for vector in vectors]

    def _nearest(
        self,
        space: SpaceName,
        vector: npt.NDArray[np.float32],
        k: int,
        condition: str | None,
        *,
        exact: bool,
    ) -> Any:
        pa = require("pyarrow", "search")
        query = self._table().search(vector, vector_column_name=space)
        query = query.distance_type("cosine").limit(k).select([*ROW_COLUMNS, "_distance"])
        if condition is not None:
            query = query.where(condition, prefilter=True)
        if exact:
            query = query.bypass_vector_index()
        else:
            # No upper limit: where a condition leaves less than k in these cells, more are read.
            query = query.minimum_nprobes(CELLS_SEARCHED).maximum_nprobes(0)
            query = query.refine_factor(max(COMPARED, -(-_LEAST_COMPARED // k)))
        found = query.to_arrow()
        cosines = 1 - found.column("_distance").to_numpy()
        return found.select(ROW_COLUMNS).append_column(COSINE, pa.array(cosines, pa.float32()))

    def read(self, columns: Sequence[str], *, where: Where, batch: int) -> Iterator[Any]:
        """See `Engine`."""
        table = self._table()
        if table is not None:
            yield from self._scan(columns, where).to_batches(batch)

    def _scan(self, columns: Sequence[str], where: Where) -> Any:
        query = self._table().search().select(list(columns))
        condition = sql_of(where)
        return query if condition is None else query.where(condition)

    def sample(self, space: SpaceName, count: int, *, seed: int) -> npt.NDArray[np.float32]:
        """See `Engine`."""
        table = self._table()
        rows = table.count_rows()
        drawn = np.random.default_rng(seed).permutation(rows)[:count]
        taken = table.take_offsets(sorted(drawn.tolist())).select([space]).to_arrow()
        return read_vectors(taken, space)

    def delete(self, where: Where) -> int:
        """See `Engine`."""
        table = self._table()
        if table is None:
            return 0
        return int(table.delete(sql_of(where) or "true").num_deleted_rows)

    def count(self, where: Where) -> int:
        """See `Engine`."""
        table = self._table()
        return 0 if table is None else int(table.count_rows(sql_of(where)))

    def compact(self) -> None:
        """See `Engine`; builds the search structures when there are rows enough."""
        table = self._table()
        if table is None:
            return
        table.optimize(cleanup_older_than=_KEEP)
        rows = table.count_rows()
        if rows < INDEX_FROM:
            return
        there = {index.name for index in table.list_indices()}
        kinds = require("lancedb.index", "search")
        scalar = {"id": kinds.BTree(), "dataset": kinds.Bitmap(), "label": kinds.BTree()}
        for column, config in scalar.items():
            if f"{column}_idx" not in there:
                table.create_index(column, config=config, name=f"{column}_idx")
        cells = cells_for(rows)
        for name, space in self.spaces().items():
            old = [index for index in there if index.startswith(f"{name}_cells_")]
            # Cells twice as many as they were: what was added since has outgrown the centres.
            if not any(2 * _cells_of(index) > cells for index in old):
                self.build(name, space.width, cells)
                for index in old:
                    table.drop_index(index)

    def build(self, name: SpaceName, width: int, cells: int) -> None:
        """Build the search structure of a space; beside the old one, which readers go on using."""
        kinds = require("lancedb.index", "search")
        # One bit a dimension wants whole bytes; no network of ours has another width.
        options = {"distance_type": "cosine", "num_partitions": cells}
        config = kinds.IvfFlat(**options) if width % 8 else kinds.IvfRq(**options, num_bits=1)
        _log.info("building %d cells for %s in %s", cells, name, self.uri)
        self._table().create_index(name, config=config, name=index_name(name, cells))

    def describe(self) -> Mapping[str, Any]:
        """See `Engine`."""
        table = self._table()
        indexes = {}
        for index in [] if table is None else table.list_indices():
            told = table.index_stats(index.name)
            indexes[index.name] = {
                "kind": index.index_type,
                "rows": told.num_indexed_rows,
                "rows_without": told.num_unindexed_rows,
                "segments": told.num_indices,
            }
        return {"engine": "lance", "uri": self.uri, "indexes": indexes}

    def close(self) -> None:
        """Let go of the table."""
        self._opened = self._db = None


def cells_for(rows: int) -> int:
    """How many cells that many rows are sorted into."""
    return max(1, math.ceil(rows / CELL_ROWS))


def index_name(space: SpaceName, cells: int) -> str:
    """Name of a search structure: it tells how many cells it has."""
    return f"{space}_cells_{cells}"


def _cells_of(name: str) -> int:
    found = re.fullmatch(r".*_cells_(\d+)", name)
    return int(found[1]) if found else 0
