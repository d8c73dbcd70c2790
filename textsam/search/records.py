"""What an index stores: rows, their vectors, and the spaces that say which vectors compare.

Rows travel as Arrow tables with one schema for every engine. The spaces of the vectors are stored
in the schema's metadata, so a table says by itself what its vectors may be compared with.

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
| `clip`, `sam` | D float32 | unit vectors, one column for each space of the index |
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from textsam.errors import require
from textsam.values.rle import (
    RLE,
    rle_area,
    rle_areas,
    rle_box,
    rle_boxes,
    rle_from_json,
    rle_to_json,
)

SpaceName = Literal["clip", "sam"]
FloatArray = npt.NDArray[np.float32]

ROW_COLUMNS = (
    *("id", "dataset", "image", "rle", "box", "label", "score", "iou", "area", "aspect"),
)
# Column of a search result: cosine of the angle between query and row, -1 to 1, highest first.
COSINE = "cosine"
_FORMAT_KEY = b"textsam.search.format"
_SPACES_KEY = b"textsam.search.spaces"
# Raise it when an older reader would misread a new table; readers refuse newer versions.
_FORMAT_VERSION = 1
# float32 vectors of length 1 keep their length to about 1e-6, vectors cast from float16 to 1e-3.
_MAX_LENGTH_ERROR = 2e-3


@dataclass(frozen=True, kw_only=True)
class VectorSpace:
    """Where vectors come from; two vectors can be compared only if their spaces are equal.

    Attributes:
        name: "clip", the masked CLIP embedding, in which phrases are vectors too; or "sam", the
            latents of the SAM (arXiv 2304.02643, Appendix D.6), which have no phrases.
        width: Length of a vector.
        model: Name of the network that made them.
        preprocessing: Hash of everything between the photo and the network (crop, size, mean, how
            the mask is applied) and of the network's weights.
    """

    name: SpaceName
    width: int
    model: str
    preprocessing: str


@dataclass(frozen=True, kw_only=True)
class MaskVectors:
    """The embeddings of N masks.

    Attributes:
        spaces: The spaces that have vectors, by name.
        vectors: (N, width) float32 of length 1 for each space.
    """

    spaces: Mapping[SpaceName, VectorSpace]
    vectors: Mapping[SpaceName, FloatArray]

    def __len__(self) -> int:
        return len(next(iter(self.vectors.values()))) if self.vectors else 0

    def __getitem__(self, space: SpaceName) -> FloatArray:
        """The vectors (N, width) of one space."""
        return self.vectors[space]

    def __repr__(self) -> str:
        widths = (f"{name} ({len(self)}, {s.width})" for name, s in self.spaces.items())
        return f"MaskVectors({', '.join(widths)})"


@dataclass(frozen=True, kw_only=True)
class MaskRow:
    """One mask of one photo, without its vectors.

    Attributes:
        dataset: Name of the collection that the photo is from.
        image: Id or URI with which the photo can be found again in that collection.
        rle: The mask, original pixels; not empty.
        label: What the mask shows; None if unknown.
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
        """32 hex digits, a hash of data set, image, mask and label.

        Scores are left out, so a mask that is scored again stays the same row.
        """
        size = f"{self.rle.size[0]}x{self.rle.size[1]}"
        # As JSON, so that ("ab", "") and ("a", "b") differ, and None differs from "".
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

    def __repr__(self) -> str:
        """Everything that is known except the run-length code."""
        # A `SearchResult` is a row with a cosine and shows it first.
        names = (COSINE, "label", "score", "iou", "dataset", "image", "area")
        values = [(name, getattr(self, name, None)) for name in names]
        shown = [
            f"{name}={value:.3f}" if isinstance(value, float) else f"{name}={value!r}"
            for name, value in values
            if value is not None and value == value  # NaN is not equal to itself
        ]
        return f"{type(self).__name__}({', '.join(shown)}, box={tuple(self.box.tolist())})"


def check_same_space(query: VectorSpace, stored: VectorSpace) -> None:
    """Refuse vectors of another space than the index's."""
    if query != stored:
        names = ("name", "width", "model", "preprocessing")
        different = [n for n in names if getattr(query, n) != getattr(stored, n)]
        raise ValueError(
            f"got vectors of {query}; this index holds {stored}. They differ in "
            f"{', '.join(different)}, so cosines between them mean nothing. Use the model and the "
            "options that made the index, or embed the masks again into a new index"
        )


def make_schema(spaces: Mapping[SpaceName, VectorSpace]) -> Any:
    """Arrow schema of rows with vectors of the given spaces."""
    pa = require("pyarrow", "search")
    misnamed = {key: space.name for key, space in spaces.items() if key != space.name}
    if not spaces or misnamed:
        raise ValueError(
            f'got spaces {misnamed or "none"}; wanted {{"clip": ...}}, {{"sam": ...}} or both'
        )
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
    # Sorted, so that equal spaces give equal bytes.
    described = json.dumps({name: asdict(spaces[name]) for name in names}, sort_keys=True)
    metadata = {_FORMAT_KEY: str(_FORMAT_VERSION).encode(), _SPACES_KEY: described}
    return pa.schema(fields, metadata=metadata)


def spaces_of(schema: Any) -> dict[SpaceName, VectorSpace]:
    """The spaces that a table's schema describes."""
    metadata = schema.metadata or {}
    if _FORMAT_KEY not in metadata:
        raise ValueError(
            "this table is no index of masks: its schema does not describe the spaces of its "
            "vectors. Write one with textsam embed, or MaskIndex.open(uri).add(...)"
        )
    version = int(metadata[_FORMAT_KEY])
    if version > _FORMAT_VERSION:
        raise ValueError(
            f"this index has format {version}; this textsam reads up to {_FORMAT_VERSION}. Type: "
            "pip install -U textsam"
        )
    described = json.loads(metadata[_SPACES_KEY])
    return {name: VectorSpace(**values) for name, values in described.items()}


def make_table(rows: Sequence[MaskRow], vectors: MaskVectors) -> Any:
    """Arrow table of rows and their vectors."""
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
        "box": _fixed_size_lists(boxes.astype(np.int32)),
        "label": [_utf8(row.label) for row in rows],
        # Arrow has nulls, so that "unknown" is not mistaken for a number by other readers.
        "score": [None if math.isnan(row.score) else row.score for row in rows],
        "iou": [None if math.isnan(row.iou) else row.iou for row in rows],
        "area": areas,
        "aspect": sides[:, 0] / sides[:, 1],
    }
    for name in vectors.spaces:
        columns[name] = _fixed_size_lists(_checked_vectors(name, vectors, count=len(rows)))
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _checked_vectors(name: SpaceName, vectors: MaskVectors, *, count: int) -> FloatArray:
    """The vectors (count, width) of one space, checked for number, width and length 1."""
    array = np.ascontiguousarray(vectors.vectors[name], dtype=np.float32)
    wanted = (count, vectors.spaces[name].width)
    if array.shape != wanted:
        raise ValueError(f"got vectors {array.shape} of {name!r}; wanted {wanted}: one per row")
    lengths = np.linalg.norm(array, axis=1)
    # Written as "not below", so that NaN counts as wrong too.
    wrong = np.flatnonzero(~(np.abs(lengths - 1) < _MAX_LENGTH_ERROR))
    if wrong.size:
        raise ValueError(
            f"vector {wrong[0]} of space {name!r} has length {lengths[wrong[0]]:.3g}; wanted 1. "
            "Type: vectors / np.linalg.norm(vectors, axis=1, keepdims=True)"
        )
    return array


def _fixed_size_lists(array: npt.NDArray[Any]) -> Any:
    """(N, D) -> an Arrow array of N lists of D."""
    pa = require("pyarrow", "search")
    return pa.FixedSizeListArray.from_arrays(pa.array(array.ravel()), array.shape[1])


def distinct_rows(table: Any) -> Any:
    """The table without rows that repeat an earlier id."""
    ids = table.column("id").to_pylist()
    # Reversed, so that the first row of each id is the one that stays in the dict.
    first = {row_id: place for place, row_id in reversed(list(enumerate(ids)))}
    return table if len(first) == len(ids) else table.take(sorted(first.values()))


def read_rows(table: Any) -> Iterator[MaskRow]:
    """The rows of a table or record batch; `id`, `box`, `area`, `aspect` may be missing."""
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


def read_vectors(table: Any, space: SpaceName) -> FloatArray:
    """The vectors (N, width) float32 of one space of a table or record batch."""
    pa = require("pyarrow", "search")
    column = table.column(space) if isinstance(table, pa.Table) else table[space]
    # The values of one chunk are one buffer, which is reshaped without a copy.
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    values: FloatArray = array.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(-1, array.type.list_size)


def _utf8(label: str | None) -> str | None:
    """A label as Arrow can hold it: half a character, of a damaged file, is spelled out."""
    return None if label is None else label.encode(errors="backslashreplace").decode()
