"""LabelMe: a JSON file beside each photo, in `images/`."""

from __future__ import annotations

import base64
import io
import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from textsam.results.formats.set_photo import SetOptions, SetPhoto
from textsam.results.mask_result import MaskResult
from textsam.results.polygons import mask_to_polygons
from textsam.results.segmentation import Segmentation
from textsam.results.storage import dump_json
from textsam.values.files import write_atomically


def write_labelme(folder: Path, photos: Sequence[SetPhoto], options: SetOptions) -> None:
    """Write polygons, one shape for each part, or masks (LabelMe 5.3 and later) if not wanted.

    The parts of a mask have one `group_id`. PIL, with which LabelMe fills, paints the border, so
    the corners are the numbers of the outermost pixels.
    """
    for photo in photos:
        place = options.place(photo, folder / "images")
        result = photo.load()
        path = options.new_file(folder / "images" / f"{photo.stem}.json")
        height, width = result.size
        shapes = [shape for i, item in enumerate(result) for shape in _shapes(item, i, options)]
        payload: dict[str, Any] = {
            "version": "5.3.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": Path(os.path.relpath(place, path.parent)).as_posix(),
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        write_atomically(path, dump_json(payload))


def _shapes(item: MaskResult, index: int, options: SetOptions) -> list[dict[str, Any]]:
    """The shapes of one mask; none if it is empty."""
    if options.polygons is False:
        x0, y0, x1, y1 = (int(side) for side in item.box)
        if not item.area:
            return []
        png = io.BytesIO()
        Image.fromarray(item.mask[y0:y1, x0:x1]).save(png, "PNG")
        mask = base64.b64encode(png.getvalue()).decode()
        parts = [{"points": [[x0, y0], [x1 - 1, y1 - 1]], "shape_type": "mask", "mask": mask}]
    else:
        polygons = mask_to_polygons(item.mask, tolerance=options.tolerance, centres=True)
        # LabelMe wants three corners, also of a single pixel.
        rings = [np.resize(polygon, (max(3, len(polygon)), 2)) for polygon in polygons]
        parts = [{"points": ring.tolist(), "shape_type": "polygon"} for ring in rings]
    number = options.number(item.label)
    common: dict[str, Any] = {
        "label": options.names[number],
        "group_id": index + 1 if len(parts) > 1 else None,
        "flags": {},
    }
    if not math.isnan(item.score):
        common["score"] = round(item.score, 6)
    return [{**common, **part} for part in parts]


def read_labelme(folder: Path) -> Iterator[tuple[Path, Segmentation]]:
    """Read a file or all files of a folder; polygons, rectangles, circles and masks are masks."""
    files = [folder] if folder.is_file() else sorted(folder.rglob("*.json"))
    for path in files:
        data = json.loads(path.read_bytes())
        if not isinstance(data, dict) or "shapes" not in data:
            continue
        size = (int(data["imageHeight"]), int(data["imageWidth"]))
        groups: dict[Any, list[Any]] = {}
        for index, shape in enumerate(data["shapes"]):
            group = shape.get("group_id")
            key = ("shape", index) if group is None else (shape["label"], group)
            groups.setdefault(key, []).append(shape)
        masks = [
            np.any([_fill(shape, size) for shape in group], axis=0) for group in groups.values()
        ]
        result = Segmentation.from_masks(
            np.asarray(masks, dtype=np.bool_).reshape(-1, *size),
            labels=[group[0]["label"] for group in groups.values()],
            scores=[group[0].get("score", math.nan) for group in groups.values()],
        )
        yield path.parent / PureWindowsPath(data["imagePath"]).as_posix(), result


def _fill(shape: dict[str, Any], size: tuple[int, int]) -> Any:
    """The pixels of a shape, filled by PIL as LabelMe does it."""
    canvas = Image.new("1", (size[1], size[0]))
    draw, kind = ImageDraw.Draw(canvas), shape.get("shape_type") or "polygon"
    points = [(float(x), float(y)) for x, y in shape["points"]]
    if kind == "mask":
        png = Image.open(io.BytesIO(base64.b64decode(shape["mask"])))
        canvas.paste(png.convert("1"), (int(points[0][0]), int(points[0][1])))
    elif kind == "rectangle":
        xs, ys = zip(*points, strict=True)
        draw.rectangle((min(xs), min(ys), max(xs), max(ys)), fill=1)
    elif kind == "circle":
        (x, y), edge = points
        radius = math.dist((x, y), edge)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=1)
    elif kind in ("polygon", "oriented_rectangle"):
        draw.polygon(points, fill=1, outline=1)
    else:
        raise ValueError(f"got a LabelMe shape {kind!r}, which covers nothing; wanted a polygon")
    return np.asarray(canvas, dtype=np.bool_)
