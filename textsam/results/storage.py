"""Files of results: what each suffix holds, and textsam's own formats, `.json` and `.npz`.

These two hold everything but the photo, and are read back exactly. Masks are COCO run-length codes
in `.json` and packed bits in `.npz`, which numpy reads without textsam:

    masks = np.unpackbits(file["masks"], axis=1, count=h * w).reshape(-1, h, w).astype(bool)
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from textsam.pictures.draw import PICTURE_SUFFIXES, encode_picture
from textsam.results.features import to_features
from textsam.results.mask_table import NUMBERS, MaskTable, make_table
from textsam.results.polygons import yolo_text
from textsam.values.rle import (
    decode_rle,
    encode_mask,
    rle_areas,
    rle_boxes,
    rle_from_json,
    rle_to_json,
)

FORMAT = "textsam.segmentation"
# Increase it when readers of the last version would misread the file; they refuse newer ones.
VERSION = 1
_ADDED = {"similarity"}  # files of this version that were written earlier lack it


def encode_result(
    table: MaskTable,
    path: Path,
    *,
    picture: Callable[[], Image.Image],
    kind: str | None,
    names: Sequence[str] | None,
) -> bytes:
    """Make the content of a file; the suffix of its future path decides the format.

    Raises:
        ValueError: An unknown suffix, or an option that does not fit it.
    """
    suffix = path.suffix.lower()
    if kind is not None and suffix not in PICTURE_SUFFIXES:
        raise ValueError(
            f"cannot save {str(path)!r} with kind={kind!r}: kinds are for pictures "
            f"({', '.join(PICTURE_SUFFIXES)})"
        )
    if names is not None and suffix != ".txt":
        raise ValueError(f"cannot save {str(path)!r} with names=: class names are for .txt (YOLO)")
    if suffix in PICTURE_SUFFIXES:
        exact = kind in ("mask", "instances", "classes")
        return encode_picture(picture(), suffix, exact=exact)
    if suffix == ".json":
        return dump_json(table_to_json(table))
    if suffix == ".npz":
        return table_to_npz(table)
    if suffix == ".geojson":
        return dump_json(to_features(table))
    if suffix == ".txt":
        return yolo_text(table, names=names).encode("ascii")
    raise ValueError(
        f"cannot save {str(path)!r}: the suffix says what to write; wanted one of "
        f"{', '.join(PICTURE_SUFFIXES)} (picture), .json, .npz, .geojson, .txt (YOLO polygons)"
    )


def read_table(path: Path) -> MaskTable:
    """Read a `.json` or `.npz` file of a result.

    Raises:
        ValueError: Another suffix, another format, a newer version, or a damaged file.
    """
    suffix = path.suffix.lower()
    if suffix not in (".json", ".npz"):
        raise ValueError(
            f"cannot load {str(path)!r}: results are read from .json and .npz; pictures and .txt "
            "do not hold everything"
        )
    data = path.read_bytes()
    try:
        if suffix == ".json":
            return table_from_json(json.loads(data))
        return table_from_npz(data)
    except ValueError as error:
        raise ValueError(f"cannot load {str(path)!r}: {error}") from error


def table_to_json(table: MaskTable) -> dict[str, Any]:
    """Make a JSON object of a table; unknown numbers are null, boxes half-open."""
    boxes, areas = rle_boxes(table.rles), rle_areas(table.rles)
    numbers = [(NUMBERS[name], values) for name, values in table.numbers.items()]
    masks = [
        {
            "label": table.labels[index],
            **{name: _json_number(values[index]) for name, values in numbers},
            "area": int(areas[index]),
            "box": boxes[index].tolist(),
            "rle": rle_to_json(rle),
        }
        for index, rle in enumerate(table.rles)
    ]
    return {
        "format": FORMAT,
        "version": VERSION,
        "size": list(table.size),
        "presence": dict(table.presence),
        "masks": masks,
    }


def table_from_json(payload: Any) -> MaskTable:
    """Read what `table_to_json` made; boxes and areas are computed from the masks."""
    if not isinstance(payload, Mapping) or payload.get("format") != FORMAT:
        raise ValueError(
            f'got JSON without "format": "{FORMAT}"; for COCO and SA-1B see textsam.results.interop'
        )
    _check_version(payload.get("version"))
    try:
        size = (int(payload["size"][0]), int(payload["size"][1]))
        masks = payload["masks"]
        return make_table(
            size,
            [rle_from_json(mask["rle"]) for mask in masks],
            labels=[mask["label"] for mask in masks],
            presence=payload["presence"],
            **{name: [_read_number(mask, key) for mask in masks] for name, key in NUMBERS.items()},
        )
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(
            f"damaged {FORMAT} JSON ({type(error).__name__}: {error}); write it again with save()"
        ) from error


def table_to_npz(table: MaskTable) -> bytes:
    """Pack a table into the bytes of an `.npz` file, without pickles and reproducibly."""
    pixels = table.size[0] * table.size[1]
    bits = np.zeros((len(table.rles), (pixels + 7) // 8), dtype=np.uint8)
    for index, rle in enumerate(table.rles):
        bits[index] = np.packbits(decode_rle(rle))
    # `savez_compressed` writes no time stamps, so that equal results are equal bytes.
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        format=np.asarray(FORMAT),
        version=np.asarray(VERSION),
        size=np.asarray(table.size, dtype=np.int64),
        masks=bits,
        boxes=rle_boxes(table.rles).astype(np.float32),
        areas=rle_areas(table.rles),
        **table.numbers,  # type: ignore[arg-type]  # numpy types its one option only
        # Text as JSON: numpy would need pickles for None, and it cuts trailing NUL characters.
        labels=np.asarray(json.dumps(list(table.labels))),
        presence=np.asarray(json.dumps(dict(table.presence))),
    )
    return buffer.getvalue()


def table_from_npz(data: bytes) -> MaskTable:
    """Read what `table_to_npz` made."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:  # pickles could run code
            if "format" not in file or str(file["format"]) != FORMAT:
                raise ValueError(f"got an .npz file without format {FORMAT!r}")
            _check_version(int(file["version"]))
            size = (int(file["size"][0]), int(file["size"][1]))
            # One at a time: all masks together may not fit into memory.
            pixels = (np.unpackbits(row, count=size[0] * size[1]) for row in file["masks"])
            return make_table(
                size,
                [encode_mask(bits.reshape(size).astype(np.bool_)) for bits in pixels],
                labels=json.loads(str(file["labels"])),
                presence=json.loads(str(file["presence"])),
                **{name: file[name] for name in NUMBERS if name not in _ADDED or name in file},
            )
    except (KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"damaged {FORMAT} .npz ({type(error).__name__}: {error}); write it again with save()"
        ) from error


def dump_json(payload: Any) -> bytes:
    """Strict JSON (no NaN) in UTF-8, on one line."""
    dump = partial(json.dumps, payload, allow_nan=False, separators=(", ", ": "))
    try:
        return (dump(ensure_ascii=False) + "\n").encode("utf-8")
    except UnicodeEncodeError:  # half a character in a label, which JSON can only escape
        return (dump() + "\n").encode("ascii")


def _check_version(version: Any) -> None:
    if version != VERSION:
        raise ValueError(
            f"got {FORMAT} version {version!r}; this textsam reads version {VERSION}. "
            "Type: pip install --upgrade textsam"
        )


def _read_number(mask: Mapping[str, Any], key: str) -> float:
    value = mask.get(key) if key in _ADDED else mask[key]
    return math.nan if value is None else float(value)


def _json_number(value: np.float32) -> float | None:
    """The shortest decimal that is this float32; None for NaN, which JSON does not have."""
    return None if np.isnan(value) else float(str(value))
