"""A user's board as the browser gets it: numbers, names and run-length codes, no pictures.

The browser draws the masks itself, so opacity, outlines, zoom and hiding cost no round trip, and a
click costs a few kilobytes each way.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

from textsam.values.rle import rle_area, rle_box
from textsam.values.rle_ops import crop_rle

from .board import Thing
from .explorer import Explorer

__all__ = ["empty_scene", "scene_of"]

# Tells the browser that an answer has come, also where nothing on the board changed.
_serials = itertools.count(1)


def empty_scene(message: str = "", *, error: bool = False) -> dict[str, Any]:
    """What is shown before a photo is open."""
    return {
        "serial": next(_serials),
        "photo": None,
        "things": [],
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
    """The scene of an explorer.

    Args:
        explorer: Whose.
        photo_url: Where the browser finds the photo.
        message: In place of the explorer's note.
        error: Whether the message tells what went wrong.
    """
    with explorer.lock:
        scene = empty_scene(explorer.note if message is None else message, error=error)
        photo, board = explorer.photo, explorer.board
        if photo is None or photo_url is None:
            return scene
        height, width = photo.size
        undo, redo = explorer.steps
        scene |= {
            "photo": {"url": photo_url, "width": width, "height": height, "name": photo.name},
            "things": [_thing_to_dict(thing) for thing in board.things],
            "active": board.active,
            "presence": [
                {
                    "phrase": phrase,
                    "chance": _number(chance),
                    "count": sum(thing.found.label == phrase for thing in board.things),
                }
                for phrase, chance in board.presence
            ],
            "undo": undo,
            "redo": redo,
        }
        return scene


def _thing_to_dict(thing: Thing) -> dict[str, Any]:
    found = thing.found
    x0, y0, x1, y1 = (int(side) for side in rle_box(found.rle))
    counts = "" if x0 == x1 else crop_rle(found.rle, (x0, y0, x1, y1)).counts.decode("ascii")
    height, width = found.rle.size
    reading = next((i for i, item in enumerate(thing.readings) if item.rle == found.rle), 0)
    return {
        "number": thing.number,
        "name": thing.name,
        "color": list(thing.rgb),
        "shown": thing.shown,
        "origin": thing.origin,
        "box": [x0, y0, x1, y1],
        "counts": counts,  # COCO's code of the mask inside the box
        "share": rle_area(found.rle) / (height * width),
        "score": _number(found.score),
        "iou": _number(found.iou),
        "points": [[x, y, int(on)] for x, y, on in thing.points],
        "asked_box": None if thing.box is None else list(thing.box),
        "readings": len(thing.readings),
        "reading": reading,
    }


def _number(value: float) -> float | None:
    """For JSON, which has no NaN; three decimals are more than anybody reads."""
    return round(float(value), 3) if math.isfinite(value) else None
