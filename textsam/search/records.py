"""A row of an index: one mask, where it is from, what is known of it, and its vectors.

Rows travel as Arrow tables, one schema for every engine. The spaces of the vectors ride in the
schema's metadata, so a table says by itself what its vectors may be compared with.

| column | type | what |
|---|---|---|
| `id` | string | 32 hex digits, from the content: data set, image, mask and label |
| `dataset`, `image` | string | name of the collection; id or URI of the photo |
| `rle` | struct | COCO's JSON form, `{"size": [H, W], "counts": "..."}` |
| `box` | 4 int32 | half-open x0, y0, x1, y1, original pixels |
| `label` | string | null if there is none |
| `score`, `iou` | float32 | as in `Segmentation`; null if unknown |
| `area` | int64 | pixels |
| `aspect` | float64 | width / height of the box |
| `clip`, `sam` | D float32 | unit vectors, of the spaces that the index has |
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from textsam.errors import require
from textsam.search.spaces import MaskVectors, SpaceName, VectorSpace
from textsam.values.rle import (
    RLE,
    rle_area,
    rle_areas,
    rle_box,
    rle_boxes,
    rle_from_json,
    rle_to_json,
)

__all__ = [
    "ROW_COLUMNS",
    "MaskRow",
    "distinct",
    "make_schema",
    "make_table",
    "read_rows",
    "read_vectors",
    "spaces_of",
]

ROW_COLUMNS = (
    *("id", "dataset", "image", "rle", "box", "label", "score", "iou", "area", "aspect"),
)
_FORMAT = b"textsam.search.format"
_SPACES = b"textsam.search.spaces"
# Raised when a reader of the last version would misread a table; readers refuse what is newer.
_VERSION = 1
# float32 vectors of length 1 keep it to about 1e-6; float16 ones, cast, to 1e-3.
_LENGTH_ERROR = 2e-3


@dataclass(frozen=True, kw_only=True)
class MaskRow:
    """One mask of one photo, without its vectors.

    Attributes:
        dataset: Name of the collection that the photo is from.
        image: Id or URI of the photo, with which it can be found again in that collection.
        rle: The mask, original pixels; not empty.
        label: What it is; None if unknown.
        score: Probability that the label describes the mask; NaN if unknown.
        iou: Predicted IoU of the mask; NaN if unknown.
    """

    dataset: str
    image: str
    rle: RLE
    label: str | None = None
    score: float = math.nan
    iou: float = math.nan

    @cached_property
    def id(self) -> str:
        """32 hex digits from data set, image, mask and label: the same row, the same id.

        Scores are not in it: a mask that is scored anew stays the same row.
        """
        size = f"{self.rle.size[0]}x{self.rle.size[1]}"
        parts = (self.dataset, self.image, size, self.rle.counts.decode("ascii"), self.label)
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

    @property
    def box(self) -> npt.NDArray[np.int64]:
        """(4,) half-open x0, y0, x1, y1, original pixels."""
        return rle_box(self.rle)

    @property
    def area(self) -> int:
        """Number of pixels."""
        return rle_area(self.rle)

    @property
    def aspect(self) -> float:
        """Width / height of the box."""
        x0, y0, x1, y1 = (int(side) for side in self.box)
        return (x1 - x0) / (y1 - y0)


def make_schema(spaces: Mapping[SpaceName, VectorSpace]) -> Any:
    """Arrow schema of rows with vectors of some spaces.

    Raises:
        ValueError: No space, or one under another's name.
        MissingExtraError: pyarrow is not installed.
    """
    pa = require("pyarrow", "search")
    wrong = {key: space.name for key, space in spaces.items() if key != space.name}
    if not spaces or wrong:
        raise ValueError(f'got spaces {wrong or "none"}; wanted {{"clip": ...}}, {{"sam": ...}}')
    counts = pa.struct([("size", pa.list_(pa.int32(), 2)), ("counts", pa.string())])
    names = sorted(spaces)
    fields = [
        *(pa.field(name, pa.string(), nullable=False) for name in ("id", "dataset", "image")),
        pa.field("rle", counts, nullable=False),
        pa.field("box", pa.list_(pa.int32(), 4), nullable=False),
        pa.field("label", pa.string()),
        *(pa.field(name, pa.float32()) for name in ("score", "iou")),
        pa.field("area", pa.int64(), nullable=False),
        pa.field("aspect", pa.float64(), nullable=False),
        *(pa.field(n, pa.list_(pa.float32(), spaces[n].width), nullable=False) for n in names),
    ]
    described = json.dumps({name: asdict(spaces[name]) for name in names}, sort_keys=True)
    return pa.schema(fields, metadata={_FORMAT: str(_VERSION).encode(), _SPACES: described})


def spaces_of(schema: Any) -> dict[SpaceName, VectorSpace]:
    """The spaces that a table's schema tells of.

    Raises:
        ValueError: No schema of ours, or one of a newer textsam.
    """
    metadata = schema.metadata or {}
    if _FORMAT not in metadata:
        raise ValueError("this table is no index of masks: its schema does not tell its spaces")
    version = int(metadata[_FORMAT])
    if version > _VERSION:
        raise ValueError(
            f"this index has format {version}; this textsam reads up to {_VERSION}. Type: "
            "pip install -U textsam"
        )
    return {name: VectorSpace(**told) for name, told in json.loads(metadata[_SPACES]).items()}


def make_table(rows: Sequence[MaskRow], vectors: MaskVectors) -> Any:
    """Arrow table of rows and their vectors.

    Raises:
        ValueError: Lengths that do not fit, an empty mask, vectors of another width or not of
            length 1.
        MissingExtraError: pyarrow is not installed.
    """
    pa = require("pyarrow", "search")
    schema = make_schema(vectors.spaces)
    areas = rle_areas([row.rle for row in rows])
    boxes = rle_boxes([row.rle for row in rows])
    empty = np.flatnonzero(areas == 0)
    if empty.size:
        raise ValueError(f"mask {empty[0]} of {len(rows)} is empty: nothing to find; drop it")
    sides = boxes[:, 2:] - boxes[:, :2]
    columns: dict[str, Any] = {
        "id": [row.id for row in rows],
        "dataset": [row.dataset for row in rows],
        "image": [row.image for row in rows],
        "rle": [rle_to_json(row.rle) for row in rows],
        "box": _fixed_lists(boxes.astype(np.int32)),
        "label": [row.label for row in rows],
        "score": [None if math.isnan(row.score) else row.score for row in rows],
        "iou": [None if math.isnan(row.iou) else row.iou for row in rows],
        "area": areas,
        "aspect": sides[:, 0] / sides[:, 1],
    }
    for name in vectors.spaces:
        columns[name] = _fixed_lists(_checked(name, vectors, count=len(rows)))
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _checked(name: SpaceName, vectors: MaskVectors, *, count: int) -> npt.NDArray[np.float32]:
    """The vectors (count, width) of a space, if they are that many, that wide and of length 1."""
    array = np.ascontiguousarray(vectors.vectors[name], dtype=np.float32)
    if array.shape != (count, vectors.spaces[name].width):
        raise ValueError(
            f"got vectors {array.shape} of space {name!r}; wanted "
            f"{(count, vectors.spaces[name].width)}: one per row"
        )
    lengths = np.linalg.norm(array, axis=1)
    # Written so that NaN is wrong too.
    wrong = np.flatnonzero(~(np.abs(lengths - 1) < _LENGTH_ERROR))
    if wrong.size:
        raise ValueError(
            f"vector {wrong[0]} of space {name!r} has length {lengths[wrong[0]]:.3g}; wanted 1. "
            "Type: vectors / np.linalg.norm(vectors, axis=1, keepdims=True)"
        )
    return array


def _fixed_lists(array: npt.NDArray[Any]) -> Any:
    """(N, D) -> an Arrow array of N lists of D."""
    pa = require("pyarrow", "search")
    return pa.FixedSizeListArray.from_arrays(pa.array(array.ravel()), array.shape[1])


def distinct(table: Any) -> Any:
    """The table without rows whose id came before."""
    ids = table.column("id").to_pylist()
    first = {name: index for index, name in reversed(list(enumerate(ids)))}
    return table if len(first) == len(ids) else table.take(sorted(first.values()))


def read_rows(table: Any) -> Iterator[MaskRow]:
    """The rows of a table that has at least `ROW_COLUMNS` but `id`, `box`, `area` and `aspect`."""
    names = ["dataset", "image", "rle", "label", "score", "iou"]
    for row in table.select(names).to_pylist():
        yield MaskRow(
            dataset=row["dataset"],
            image=row["image"],
            rle=rle_from_json(row["rle"]),
            label=row["label"],
            score=math.nan if row["score"] is None else row["score"],
            iou=math.nan if row["iou"] is None else row["iou"],
        )


def read_vectors(table: Any, space: SpaceName) -> npt.NDArray[np.float32]:
    """The vectors (N, width) float32 of a space."""
    pa = require("pyarrow", "search")
    column = table.column(space) if isinstance(table, pa.Table) else table[space]
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    width = array.type.list_size
    values: npt.NDArray[np.float32] = array.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(-1, width)
