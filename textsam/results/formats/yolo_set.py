"""YOLO's segmentation data set: `images/`, `labels/`, `data.yaml`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from textsam.errors import require
from textsam.results.formats.set_photo import SetOptions, SetPhoto, find_photo, named, photo_size
from textsam.results.mask_table import make_table
from textsam.results.polygons import fill_polygons, yolo_text
from textsam.results.segmentation import Segmentation
from textsam.values.files import write_atomically
from textsam.values.rle import RLE, encode_mask


def write_yolo(folder: Path, photos: Sequence[SetPhoto], options: SetOptions) -> None:
    """Write a `.txt` for each photo, also for those without masks; see `yolo_text`."""
    for photo in photos:
        options.place(photo, folder / "images")
        result = named(photo.load())
        for label in result.labels:
            options.number(label)
        table = make_table(result.size, result.rles, labels=result.labels)
        text = yolo_text(table, names=options.names, tolerance=options.tolerance)
        path = options.new_file(folder / "labels" / f"{photo.stem}.txt")
        write_atomically(path, text.encode())
    # JSON's strings are YAML's, too. Trainers ask for "val": split the photos yourself.
    names = "".join(f"  {i}: {json.dumps(name)}\n" for i, name in enumerate(options.names))
    text = f"train: images\nval: images\nnames:\n{names}" if names else "names: []\n"
    write_atomically(options.new_file(folder / "data.yaml"), text.encode())


def read_yolo(folder: Path) -> Iterator[tuple[Path, Segmentation]]:
    """Read label files as trainers do: corners cut to whole pixels, the border painted."""
    root = folder.parent if folder.is_file() else folder
    listed = require("yaml", "all").safe_load((root / "data.yaml").read_text("utf-8"))["names"]
    names: dict[int, str] = dict(listed if isinstance(listed, dict) else enumerate(listed))
    for path in sorted((root / "labels").rglob("*.txt")):
        stem = path.relative_to(root / "labels").with_suffix("").as_posix()
        photo = find_photo(root / "images", stem)
        size = photo_size(photo)
        rows = [_read_line(line, size) for line in path.read_text().splitlines() if line.strip()]
        yield (
            photo,
            Segmentation(
                size,
                [rle for _, rle, _ in rows],
                labels=[names[number] for number, _, _ in rows],
                scores=[score for _, _, score in rows],
            ),
        )


def _read_line(line: str, size: tuple[int, int]) -> tuple[int, RLE, float]:
    number, *places = (float(part) for part in line.split())
    if len(places) < 6:
        raise ValueError(
            f"got YOLO line {line[:60]!r}: a box has no mask; wanted 3 corners or more"
        )
    score = places.pop() if len(places) % 2 else math.nan
    corners: Any = np.asarray(places).reshape(-1, 2) * [size[1], size[0]]
    # Written with six digits: a whole number may come back a little below itself.
    corners = np.floor(corners + 1e-3).clip(0, [size[1] - 1, size[0] - 1])
    return int(number), encode_mask(fill_polygons([corners], size, centres=True)), score
