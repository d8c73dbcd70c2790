"""Parquet in the schema that training reads, and `datasets.load_dataset("parquet", ...)`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from textsam.errors import require
from textsam.results.formats.set_photo import SetOptions, SetPhoto
from textsam.results.segmentation import Segmentation
from textsam.values.files import open_atomically
from textsam.values.rle import rle_areas, rle_boxes, rle_from_json

_PHOTOS_AT_ONCE = 16  # a row group, which is what readers hold in memory


def write_parquet(folder: Path, photos: Sequence[SetPhoto], options: SetOptions) -> None:
    """Write `masks.parquet`, a row for each photo: its file, and masks as COCO counts.

    With photos that are not copied, `image` holds the path alone.
    """
    pa, parquet = require("pyarrow", "search"), require("pyarrow.parquet", "search")
    text, whole = pa.string(), pa.int64()
    kinds = {"label": text, "kind": text, "rle": text, "score": pa.float32(), "area": whole}
    kinds |= {"bbox": pa.list_(whole), "ignore": pa.bool_()}
    columns = {"image": pa.struct([("bytes", pa.binary()), ("path", text)]), "image_id": text}
    columns |= {"source": text, "license": text, "height": whole, "width": whole}
    columns |= {
        "exhaustive": pa.bool_(),
        "void": text,
        "objects": pa.list_(pa.struct(kinds.items())),
    }
    # What `datasets` needs to show photos as photos.
    info = {"info": {"features": {"image": {"_type": "Image"}}}}
    schema = pa.schema(columns.items())
    info["info"]["features"] |= {
        name: _feature(schema.field(name).type) for name in schema.names if name != "image"
    }
    schema = schema.with_metadata({"huggingface": json.dumps(info)})
    path = options.new_file(folder / "masks.parquet")
    with open_atomically(path) as file, parquet.ParquetWriter(file, schema) as writer:
        for start in range(0, len(photos), _PHOTOS_AT_ONCE):
            rows = [_row(photo, options) for photo in photos[start : start + _PHOTOS_AT_ONCE]]
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def _feature(kind: Any) -> Any:
    """An Arrow type as `datasets` writes it."""
    types = require("pyarrow", "search").types
    if types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    if types.is_struct(kind):
        return {field.name: _feature(field.type) for field in kind}
    return {"dtype": {"float": "float32"}.get(str(kind), str(kind)), "_type": "Value"}


def _row(photo: SetPhoto, options: SetOptions) -> dict[str, Any]:
    result = photo.load()
    height, width = result.size
    boxes, areas = rle_boxes(result.rles), rle_areas(result.rles)
    objects = [
        {
            "label": options.names[options.number(item.label)],
            "kind": "thing",
            "rle": item.rle.counts.decode("ascii"),
            "score": None if math.isnan(item.score) else item.score,
            "area": int(area),
            "bbox": box.tolist(),
            "ignore": False,
        }
        for item, area, box in zip(result, areas, boxes, strict=True)
    ]
    inside = options.photos == "copy"
    return {
        "image": {
            "bytes": photo.path.read_bytes() if inside else None,
            "path": photo.name if inside else str(photo.path.resolve()),
        },
        "image_id": photo.name,
        "source": "textsam",
        "license": "",
        "height": height,
        "width": width,
        # Nobody has checked that nothing is missing.
        "exhaustive": False,
        "void": None,
        "objects": objects,
    }


def read_parquet(folder: Path) -> Iterator[tuple[Path, Segmentation]]:
    """Read a file, or those of a folder; the paths are those that the rows name."""
    parquet = require("pyarrow.parquet", "search")
    files = [folder] if folder.is_file() else sorted(folder.glob("*.parquet"))
    for path in files:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_PHOTOS_AT_ONCE):
                for row in batch.to_pylist():
                    yield Path(row["image"]["path"] or row["image_id"]), _result_of(row)


def _result_of(row: dict[str, Any]) -> Segmentation:
    size, objects = (row["height"], row["width"]), row["objects"]
    scores = [item.get("score") for item in objects]
    return Segmentation(
        size,
        [rle_from_json({"size": size, "counts": item["rle"]}) for item in objects],
        labels=[item["label"] for item in objects],
        scores=[math.nan if score is None else score for score in scores],
    )
