"""Photos with masks in textsam's own Parquet schema.

A row has `image` (bytes), `image_id`, `source`, `license`, `height`, `width`, `exhaustive`, `void`
(COCO counts or null) and `objects`: `label`, `kind`, `rle` (COCO counts), `area`, `bbox`, `ignore`.
It may have a `group` (text, or null), of the photo or of an object, whose own counts.
"""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from textsam.results.coco_rows import RowProblems
from textsam.values.rle import RLE, rle_from_json

from .sample import ObjectMask, Sample, readable_objects

_COLUMNS = ("image", "image_id", "height", "width", "exhaustive", "void", "objects")
logger = logging.getLogger(__name__)

# Training works without these.
_OPTIONAL = ("source", "group")


def load_samples(paths: Sequence[Path | str]) -> list[Sample]:
    """Read Parquet files of the schema above; images stay encoded until they are asked for."""
    samples: list[Sample] = []
    problems = RowProblems()
    for path in paths:
        table = pq.read_table(path)
        _check_columns(path, table.schema)
        for index, row in enumerate(table.to_pylist()):
            try:
                samples.append(_sample(row, problems))
            except ValueError as error:
                problems.add("a photo that cannot be read", f"{path}, row {index}: {error}")
    if problems and not samples:
        raise ValueError(f"no row can be read: {problems}")
    if problems:
        logger.warning("%s", problems)
    return samples


class ParquetSource:
    """The same files, read a row group at a time when a photo of it is asked for.

    For sets that do not fit into memory: it holds `window + 1` row groups, so write such files with
    small ones (`pq.write_table(table, path, row_group_size=256)`).
    """

    def __init__(
        self, paths: Sequence[Path | str], *, name: str | None = None, window: int = 8
    ) -> None:
        """Read the files' footers, nothing else."""
        if not paths:
            raise ValueError("ParquetSource: got no file; wanted at least one Parquet file")
        if window < 1:
            raise ValueError(f"ParquetSource: window={window}; wanted at least 1 row group")
        self.name = name or Path(paths[0]).stem
        self.window = window
        self.groups: list[int] = []
        self._where: list[tuple[str, int]] = []
        for path in map(str, paths):
            with pq.ParquetFile(path) as file:
                _check_columns(path, file.schema_arrow)
                for number in range(file.num_row_groups):
                    if rows := file.metadata.row_group(number).num_rows:
                        self.groups.append(rows)
                        self._where.append((path, number))
        if not self.groups:
            raise ValueError(f"ParquetSource: {', '.join(map(str, paths))}: no row in them")
        self.problems = RowProblems()
        self._ends = np.cumsum(self.groups)
        self._process = -1
        self._tables: OrderedDict[int, pa.Table] = OrderedDict()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name}: row {index} of {len(self)}")
        group = int(np.searchsorted(self._ends, index, side="right"))
        row = index - int(self._ends[group]) + self.groups[group]
        return _sample(self._table(group).slice(row, 1).to_pylist()[0], self.problems)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tables": OrderedDict(), "_process": -1}

    def _table(self, group: int) -> pa.Table:
        """A row group; a forked worker does not keep what its parent had read."""
        if self._process != os.getpid():
            self._tables, self._process = OrderedDict(), os.getpid()
        if group not in self._tables:
            path, number = self._where[group]
            with pq.ParquetFile(path) as file:
                columns = [c for c in (*_COLUMNS, *_OPTIONAL) if c in file.schema_arrow.names]
                # Threads of pyarrow's pool do not survive a fork.
                table = file.read_row_group(number, columns=columns, use_threads=False)
            self._tables[group] = table
            # One more than the window: the next one begins before the last one is done.
            if len(self._tables) > self.window + 1:
                self._tables.popitem(last=False)
        self._tables.move_to_end(group)
        return self._tables[group]


def _check_columns(path: Path | str, schema: pa.Schema) -> None:
    missing = set(_COLUMNS) - set(schema.names)
    if missing:
        raise ValueError(
            f"{path} has no column {sorted(missing)}: it is not a file of photos with masks"
        )
    for name, fits, wanted in (
        ("image", pa.types.is_struct, "a struct of bytes and path"),
        ("objects", pa.types.is_list, "a list of structs"),
    ):
        kind = schema.field(name).type
        if not fits(kind) and not pa.types.is_null(kind):
            raise ValueError(f"{path}: column {name} holds {kind}; wanted {wanted}")


def _sample(row: dict[str, Any], problems: RowProblems) -> Sample:
    """The photo of a row; a ValueError if it cannot be read, as sources raise for broken photos."""

    def read(item: dict[str, Any]) -> ObjectMask:
        return ObjectMask(
            label=item["label"],
            kind=item["kind"],
            rle=_mask(item["rle"], size),
            ignore=bool(item["ignore"]),
            group=item.get("group") or row.get("group") or "",
        )

    empty = [name for name in ("image", "height", "width", "objects") if row.get(name) is None]
    if empty:
        raise ValueError(f"it has no value in column {', '.join(empty)}")
    try:
        size = (int(row["height"]), int(row["width"]))
        photo = str(row["image_id"])
        objects, complete = readable_objects(row["objects"], read, problems, photo=photo)
        return Sample(
            image_id=row["image_id"],
            source=row.get("source") or "",
            encoded=row["image"]["bytes"],
            size=size,
            # An object whose mask is lost may be anywhere, so its name is not absent.
            exhaustive=row["exhaustive"] and complete,
            void=None if row["void"] is None else _mask(row["void"], size),
            objects=objects,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"a value is missing or of another type: {error!r}") from error


def _mask(counts: str, size: tuple[int, int]) -> RLE:
    return rle_from_json({"size": size, "counts": counts})
