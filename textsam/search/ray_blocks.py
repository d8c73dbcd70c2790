"""What travels between the stages of a Ray job, and its first and last stage.

No networks are imported here: processes that only read rows or commit them start at once.
"""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from textsam.errors import require
from textsam.search.commits import PhotoRows, add_tables
from textsam.search.data_photos import PhotoSource, batches
from textsam.search.index import MaskIndex

__all__ = ["Batch", "Committer", "pack", "rows_of", "unpack"]

# Columns of a block of Ray Data.
Batch: TypeAlias = dict[str, Any]


class Committer:
    """Puts the rows of whole photos into the index; one at a time, since commits contend."""

    def __init__(self, uri: str, options: Mapping[str, str]) -> None:
        self.index = MaskIndex.open(uri, storage_options=options)

    def __call__(self, batch: Batch) -> Batch:
        """Commit; the rows themselves go no further."""
        photos = unpack(batch)
        add_tables(self.index, [photo.table for photo in photos])
        return {key: values for key, values in batch.items() if key != "table"}


def pack(photos: Sequence[PhotoRows]) -> Batch:
    """Photos as columns: a row a photo, so that no commit tears one apart."""
    return {
        "image": [photo.image for photo in photos],
        "masks": [photo.masks for photo in photos],
        "kept": [photo.kept for photo in photos],
        "error": [photo.error or "" for photo in photos],
        "table": [b"" if photo.table is None else _to_bytes(photo.table) for photo in photos],
    }


def unpack(batch: Batch) -> list[PhotoRows]:
    """The reverse of `pack`; without tables if they went no further."""
    tables = batch.get("table", [b""] * len(batch["image"]))
    columns = (batch["image"], batch["masks"], batch["kept"], batch["error"], tables)
    return [
        PhotoRows(
            image=str(image),
            masks=int(masks),
            kept=int(kept),
            error=str(error) or None,
            table=_from_bytes(table) if table else None,
        )
        for image, masks, kept, error, table in zip(*columns, strict=True)
    ]


def _to_bytes(table: Any) -> bytes:
    """An Arrow table as a stream of its own, whose schema keeps the spaces."""
    pa = require("pyarrow", "search")
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _from_bytes(packed: bytes) -> Any:
    pa = require("pyarrow", "search")
    with pa.ipc.open_stream(packed) as reader:
        return reader.read_all()


def rows_of(source: PhotoSource, *, limit: int | None, block: int) -> Any:
    """A `ray.data.Datasource` of a source's rows, pickled; photos are opened by the workers.

    One task reads them: they are numbers, or a stream that only one can read.
    """
    pa = require("pyarrow", "search")
    data = require("ray.data", "scale")
    unknown = require("ray.data.block", "scale").BlockMetadata(
        num_rows=None, size_bytes=None, input_files=None, exec_stats=None
    )

    def tables() -> Iterator[Any]:
        for rows in batches(itertools.islice(source.rows(), limit), block):
            yield pa.table({"row": pa.array([pickle.dumps(row) for row in rows], pa.binary())})

    class Rows(data.Datasource):  # type: ignore[misc, name-defined, unused-ignore]
        def estimate_inmemory_data_size(self) -> int | None:
            return None

        def get_read_tasks(
            self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
        ) -> list[Any]:
            return [data.ReadTask(tables, unknown, per_task_row_limit=per_task_row_limit)]

    return Rows()
