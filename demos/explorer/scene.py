"""A user's board as JSON for the browser: numbers, names and run-length codes, no pictures.

The browser draws the masks itself, so opacity, outlines, zoom and hiding need no round trip, and a
click costs a few kilobytes each way.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from textsam.values.rle import rle_box
from textsam.values.rle_ops import crop_rle

from .board import BoardObject
from .explorer import Explorer

# Shows the browser that an answer has arrived, even if nothing on the board changed.
_serials = itertools.count(1)


def empty_scene(message: str = "", *, error: bool = False) -> dict[str, Any]:
    """The scene before a photo is open."""
    return {
        "serial": next(_serials),
        "photo": None,
        "objects": [],
        "active": None,
        "presence": [],
        "undo": 0,
        "redo": 0,
        "message": message,
        "error": error,
    }


def scene_of(
    explorer: Explorer, *, photo_url: str | None, message: str | None = None, error: bool = False
) -> dict[str, Any]:
    """The scene of an explorer; `message` replaces its note."""
    scene = empty_scene(explorer.note if message is None else message, error=error)
    photo, board = explorer.photo, explorer.board
    if photo is None or photo_url is None:
        return scene
    height, width = photo.size
    undo, redo = explorer.undo_redo_counts
    labels = [item.result.label for item in board.objects]
    return scene | {
        "photo": {"url": photo_url, "width": width, "height": height, "name": photo.name},
        "objects": [_object_to_dict(item) for item in board.objects],
        "active": board.active,
        "presence": [
            {"phrase": phrase, "probability": _rounded(chance), "count": labels.count(phrase)}
            for phrase, chance in board.presence
        ],
        "undo": undo,
        "redo": redo,
    }


def _object_to_dict(item: BoardObject) -> dict[str, Any]:
    result = item.result
    x0, y0, x1, y1 = (int(side) for side in rle_box(result.rle))
    counts = "" if x0 == x1 else crop_rle(result.rle, (x0, y0, x1, y1)).counts.decode("ascii")
    height, width = result.rle.size
    readings, prompt = item.readings, item.prompt
    reading = next((i for i, other in enumerate(readings) if other.rle == result.rle), 0)
    return {
        "number": item.number,
        "name": item.name,
        "color": list(item.rgb),
        "shown": item.shown,
        "origin": item.origin,
        "box": [x0, y0, x1, y1],
        "counts": counts,  # COCO's compressed code of the mask inside the box
        "share": result.area / (height * width),
        "score": _rounded(result.score),
        "iou": _rounded(result.iou),
        # x, y, and 1 on the object or 0 beside it
        "points": np.column_stack([prompt.points, prompt.labels]).tolist(),
        "prompt_box": None if prompt.box is None else prompt.box.tolist(),
        "readings": len(readings),
        "reading": reading,
    }


def _rounded(value: float) -> float | None:
    """A number for JSON, which has no NaN."""
    return round(float(value), 3) if math.isfinite(value) else None
