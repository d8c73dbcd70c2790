"""The rows of an index in a Lance table: in a folder, an object store, or the memory of a process.

An engine knows Arrow tables, but no model and no photo; `MaskIndex` checks what goes in.

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
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import ModuleType
from typing import Any

import numpy as np

from textsam.errors import require
from textsam.search import records
from textsam.search.records import FloatArray, SpaceName, VectorSpace
from textsam.search.where import Where

IN_MEMORY = "memory://"  # each engine that opens it has a table of its own

_log = logging.getLogger(__name__)

TABLE = "masks"
# The next four are chosen by the measurements in docs/search_engines.md.
INDEX_FROM = 10_000  # rows; with fewer, comparing with all of them takes a few milliseconds
CELL_ROWS = 1_000  # rows per cell, approximately
CELLS_SEARCHED = 24  # cells that a query reads, the nearest ones
COMPARED = 10  # compare this times k rows exactly,
_DIGITS = 6  # of a cosine that are not rounding errors of float32
_MIN_COMPARED = 100  # and at least the number for k = 10, for which the recall was measured
# Caches of index pages and file footers; a process that only searches stays far below 1 GB.
_INDEX_CACHE = 192 * 2**20
_FOOTER_CACHE = 64 * 2**20
# Old versions are kept this long for readers that still use them.
_KEEP_VERSIONS = timedelta(hours=1)
# Field metadata that makes a column the primary key of a Lance table.
_PRIMARY_KEY = {b"lance-schema:unenforced-primary-key": b"true"}


class LanceEngine:
    """Rows with their vectors.

    Reading and searching are safe from several threads. A write is complete or has no effect.
    """

    def __init__(self, uri: str, *, storage_options: Mapping[str, str] | None = None) -> None:
        """Connect; the first write creates the table. See `MaskIndex.open` for the arguments."""
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
        """The spaces of the vectors; empty until rows have been added."""
        table = self._table()
        return {} if table is None else records.spaces_of(table.schema)

    def add(self, rows: Any) -> int:
        """Add those rows of an Arrow table of `make_table` whose ids are new; returns their number.

        The ids are distinct, and the spaces are those of the index.
        """
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
        self, space: SpaceName, vector: FloatArray, *, k: int, where: Where, exact: bool = False
    ) -> Any:
        """Find the rows nearest to one unit vector (width,), highest cosine first.

        The conditions are applied before the search, so that k rows come back if k rows match.
        `exact` compares with every row instead of using a search structure.

        Returns:
            Arrow table of `ROW_COLUMNS` and `cosine`.
        """
        pa = require("pyarrow", "search")
        query = self._table().search(vector, vector_column_name=space)
        query = query.distance_type("cosine").limit(k).select([*records.ROW_COLUMNS, "_distance"])
        if (sql := _sql_of(where)) is not None:
            query = query.where(sql, prefilter=True)
        if exact:
            query = query.bypass_vector_index()
        else:
            # 0 is no maximum: if fewer than k rows match in these cells, further cells are read.
            query = query.minimum_nprobes(CELLS_SEARCHED).maximum_nprobes(0)
            query = query.refine_factor(max(COMPARED, -(-_MIN_COMPARED // k)))
        rows = query.with_row_id(True).to_arrow()
        cosines = 1 - rows.column("_distance").to_numpy()
        # Rows that are equal but for rounding keep the order in which they were added: both masks
        # of a mean of two are equally close to it.
        order = np.lexsort((rows.column("_rowid").to_numpy(), -cosines.round(_DIGITS)))
        falling = np.minimum.accumulate(cosines[order])
        rows = rows.select(records.ROW_COLUMNS).take(order)
        return rows.append_column(records.COSINE, pa.array(falling, pa.float32()))

    def read(self, columns: Sequence[str], *, where: Where, batch: int) -> Iterator[Any]:
        """Record batches of some columns of the matching rows, in no particular order."""
        table = self._table()
        if table is None:
            return
        query, sql = table.search().select(list(columns)), _sql_of(where)
        yield from (query if sql is None else query.where(sql)).to_batches(batch)

    def sample(self, space: SpaceName, count: int, *, seed: int) -> FloatArray:
        """Vectors (n, width) of random rows, n the smaller of `count` and the number of rows."""
        table = self._table()
        drawn = np.random.default_rng(seed).permutation(table.count_rows())[:count]
        rows = table.take_offsets(sorted(drawn.tolist())).select([space]).to_arrow()
        return records.read_vectors(rows, space)

    def delete(self, where: Where) -> int:
        """Remove the matching rows in one transaction; returns their number."""
        table = self._table()
        if table is None:
            return 0
        return int(table.delete(_sql_of(where) or "true").num_deleted_rows)

    def count(self, where: Where) -> int:
        """Number of matching rows."""
        table = self._table()
        return 0 if table is None else int(table.count_rows(_sql_of(where)))

    def compact(self) -> None:
        """Merge small writes; build or update the search structures from `INDEX_FROM` rows on."""
        table = self._table()
        if table is None:
            return
        table.optimize(cleanup_older_than=_KEEP_VERSIONS)
        rows = table.count_rows()
        # An index in memory is small enough for comparing with every row, and stays exact.
        if rows < INDEX_FROM or self.uri == IN_MEMORY:
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
        self._table().create_index(name, config=config, name=_index_name(name, cells))

    def describe(self) -> Mapping[str, Any]:
        """The kind of engine and its search structures, for people and tests."""
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
        kind = "memory" if self.uri == IN_MEMORY else "lance"
        return {"engine": kind, "uri": self.uri, "indexes": indexes}

    def close(self) -> None:
        """Release the table and the connection."""
        self._opened = self._db = None


def connect(address: str | None) -> ModuleType:
    """Connect to a Ray cluster, unless this process is connected to one; returns `ray`.

    The address is "auto", "ray://host:10001", or None to start a cluster on this machine.
    """
    ray = require("ray", "scale")
    if not ray.is_initialized():
        ray.init(
            address=address, log_to_driver=False, include_dashboard=False, logging_level="ERROR"
        )
    return ray


class RayLanceEngine(LanceEngine):
    """Search structures are built on a Ray cluster, for tables past one machine.

    Rows are on an object store, or a folder that all machines see under this name. A build trains
    the centres once; then each worker sorts its own files into the cells and writes its own
    segment, and one commit adds all segments. Readers need no cluster.
    """

    def __init__(
        self,
        uri: str,
        *,
        storage_options: Mapping[str, str] | None = None,
        address: str | None = None,
    ) -> None:
        """Connect to the table; the cluster is connected at the first build."""
        require("lance_ray", "scale")
        super().__init__(uri, storage_options=storage_options)
        self.address = address

    def build(self, name: SpaceName, width: int, cells: int) -> None:
        """See `LanceEngine.build`; uses as many workers as the cluster has cores."""
        ray, lance_ray = connect(self.address), require("lance_ray", "scale")
        quantised = width % 8 == 0
        lance_ray.create_index(
            f"{self.uri.rstrip('/')}/{TABLE}.lance",
            column=name,
            index_type="IVF_RQ" if quantised else "IVF_FLAT",
            name=_index_name(name, cells),
            metric="cosine",
            num_partitions=cells,
            # Rows that train each centre; asking for more rows than there are fails.
            sample_rate=max(1, min(256, self.count(Where()) // cells)),
            num_workers=max(1, int(ray.cluster_resources().get("CPU", 1))),
            storage_options=self.storage_options or None,
            # Stated explicitly, since lance_ray and its workers have different defaults.
            **({"num_bits": 1} if quantised else {}),
        )

    def describe(self) -> Mapping[str, Any]:
        """See `LanceEngine.describe`."""
        return {**super().describe(), "engine": "ray", "address": self.address}


def cells_for(rows: int) -> int:
    """Number of cells for a number of rows."""
    return max(1, math.ceil(rows / CELL_ROWS))


def _index_name(space: SpaceName, cells: int) -> str:
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


@dataclass(frozen=True, kw_only=True)
class Recall:
    """How a search compares with the exact one, measured on rows of the index itself."""

    k: int  # rows per search
    queries: int  # searches, each for a row drawn at random
    recall: float  # share of the exact k nearest rows that the search returns, 0 to 1
    seconds: float  # median time of a search
    exact_seconds: float  # median time of an exact search, measured in the same run


@dataclass(frozen=True, kw_only=True)
class IndexStats:
    """What an index holds."""

    rows: int
    datasets: Mapping[str, int]  # number of rows of each data set
    spaces: Mapping[SpaceName, VectorSpace]
    engine: Mapping[str, Any]  # the engine's description of itself
    recall: Mapping[SpaceName, Recall]  # empty if it was not measured


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
