"""One COCO file: `annotations.json` beside `images/`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from textsam.results.formats.set_photo import (
    UNLABELLED,
    SetOptions,
    SetPhoto,
    annotation_id,
    named,
)
from textsam.results.interop import from_coco, to_coco
from textsam.results.segmentation import Segmentation
from textsam.results.storage import dump_json
from textsam.values.files import open_atomically


def write_coco(folder: Path, photos: Sequence[SetPhoto], options: SetOptions) -> None:
    """Write masks as run-length codes, or as polygons with bridges to their holes."""
    images = []
    with open_atomically(options.new_file(folder / "annotations.json")) as file:
        # Annotations first, one by one: those of a million photos would not fit into memory.
        file.write(b'{"annotations": [')
        between = b"\n"
        for photo in photos:
            place = options.place(photo, folder / "images")
            result = photo.load()
            height, width = result.size
            name = photo.name if options.photos != "none" else place.as_posix()
            images.append({"id": photo.id, "file_name": name, "height": height, "width": width})
            for index in range(len(result)):
                label = result.labels[index]
                (annotation,) = to_coco(
                    named(result[index : index + 1]),
                    image_id=photo.id,
                    categories={label or UNLABELLED: options.number(label) + 1},
                    first_id=annotation_id(photo, index),
                    polygons=bool(options.polygons),
                    tolerance=options.tolerance,
                )
                file.write(between + dump_json(annotation).rstrip(b"\n"))
                between = b",\n"
        categories = [{"id": i, "name": name} for i, name in enumerate(options.names, start=1)]
        rest = dump_json({"images": images, "categories": categories})
        file.write(b"\n], " + rest[1:])


def read_coco(folder: Path) -> Iterator[tuple[Path, Segmentation]]:
    """Read a COCO file, or the one in a folder."""
    path = folder if folder.is_file() else folder / "annotations.json"
    data = json.loads(path.read_bytes())
    names = {category["id"]: category["name"] for category in data.get("categories", [])}
    of_image: dict[Any, list[Any]] = {}
    for annotation in data.get("annotations", []):
        of_image.setdefault(annotation["image_id"], []).append(annotation)
    for image in data["images"]:
        annotations = of_image.get(image["id"], [])
        size = (int(image["height"]), int(image["width"]))
        result = from_coco(annotations, size, categories=names or None)
        name = Path(image["file_name"])
        inside = path.parent / "images" / name
        yield (inside if inside.exists() else path.parent / name), result
