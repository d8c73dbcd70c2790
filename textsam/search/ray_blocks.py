"""What travels between the stages of a Ray job, and its first and last stage.

Nothing here imports a network, so processes that only read rows or commit them start at once.
"""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from textsam.errors import require
from textsam.search.data_photos import PhotoRows, PhotoSource, batches
from textsam.search.index import MaskIndex

__all__ = ["Batch", "Committer", "pack", "rows_of", "unpack"]

# Columns of a block of Ray Data.
Batch: TypeAlias = dict[str, Any]


class Committer:
    """Commits the rows of whole photos; there is only one, since concurrent commits contend."""

    def __init__(self, uri: str, options: Mapping[str, str]) -> None:
        self.index = MaskIndex.open(uri, storage_options=options)

    def __call__(self, batch: Batch) -> Batch:
        """Commit the tables; the driver receives everything else."""
        self.index.add_tables(photo.table for photo in unpack(batch))
        return {key: values for key, values in batch.items() if key != "table"}


def pack(photos: Sequence[PhotoRows]) -> Batch:
    """Photos as columns, one row per photo, so that no commit contains half a photo."""
    return {
        "image": [photo.image for photo in photos],
        "masks": [photo.masks for photo in photos],
        "kept": [photo.kept for photo in photos],
        "error": [photo.error or "" for photo in photos],
        "table": [b"" if photo.table is None else _to_bytes(photo.table) for photo in photos],
    }


def unpack(batch: Batch) -> list[PhotoRows]:
    """The reverse of `pack`; without tables if the batch has none."""
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
    """An Arrow table as a stream of its own: a column of a block would lose the metadata."""
    pa = require("pyarrow", "search")
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _from_bytes(packed: bytes) -> Any:
    with require("pyarrow", "search").ipc.open_stream(packed) as reader:
        return reader.read_all()


def rows_of(source: PhotoSource, *, limit: int | None, block: int) -> Any:
    """A `ray.data.Datasource` of a source's pickled rows; the workers open the photos.

    A single task reads the rows: they are numbers, or a stream that only one process can read.
    """
    pa = require("pyarrow", "search")
    data = require("ray.data", "scale")
    metadata = require("ray.data.block", "scale").BlockMetadata(
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
            return [data.ReadTask(tables, metadata, per_task_row_limit=per_task_row_limit)]

    return Rows()
