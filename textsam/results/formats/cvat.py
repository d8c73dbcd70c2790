"""CVAT for images 1.1: `annotations.xml` beside `images/`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from textsam.results.formats.set_photo import SetOptions, SetPhoto
from textsam.results.mask_result import MaskResult
from textsam.results.polygons import fill_polygons, mask_to_polygons
from textsam.results.segmentation import Segmentation
from textsam.values.files import open_atomically


def write_cvat(folder: Path, photos: Sequence[SetPhoto], options: SetOptions) -> None:
    """Write masks as row-major run lengths of their box, or polygons, one for each part.

    CVAT fills polygons by pycocotools, so they run along the edges of pixels. The parts of a mask
    have one `group_id`.
    """
    with open_atomically(options.new_file(folder / "annotations.xml")) as file:
        file.write(
            b'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n'
        )
        for number, photo in enumerate(photos):
            options.place(photo, folder / "images")
            result = photo.load()
            height, width = result.size
            image = ElementTree.Element("image", id=str(number), name=photo.name)
            image.attrib |= {"width": str(width), "height": str(height)}
            for index, item in enumerate(result):
                _add_mask(image, item, index + 1, options)
            file.write(ElementTree.tostring(image, encoding="utf-8") + b"\n")
        meta, task = ElementTree.Element("meta"), ElementTree.Element("task")
        meta.append(task)
        labels = ElementTree.SubElement(task, "labels")
        for name in options.names:
            label = ElementTree.SubElement(labels, "label")
            ElementTree.SubElement(label, "name").text = name
        file.write(ElementTree.tostring(meta, encoding="utf-8") + b"\n</annotations>\n")


def _add_mask(
    image: ElementTree.Element, item: MaskResult, group: int, options: SetOptions
) -> None:
    label = options.names[options.number(item.label)]
    common = {"label": label, "source": "auto", "occluded": "0", "z_order": "0"}
    added = []
    if options.polygons:
        polygons = mask_to_polygons(item.mask, tolerance=options.tolerance)
        for ring in polygons:
            points = ";".join(f"{x:g},{y:g}" for x, y in ring.tolist())
            parts = {"group_id": str(group)} if len(polygons) > 1 else {}
            added.append(ElementTree.SubElement(image, "polygon", common, points=points, **parts))
    elif item.area:
        x0, y0, x1, y1 = (int(side) for side in item.box)
        crop = item.mask[y0:y1, x0:x1].ravel()
        runs = np.diff(np.flatnonzero(np.diff(crop, prepend=crop[0], append=~crop[-1])), prepend=0)
        # The first run is one of zeros.
        lengths = [0, *runs.tolist()] if crop[0] else runs.tolist()
        place = {"left": x0, "top": y0, "width": x1 - x0, "height": y1 - y0}
        texts = {key: str(value) for key, value in place.items()}
        rle = ", ".join(map(str, lengths))
        added.append(ElementTree.SubElement(image, "mask", common, rle=rle, **texts))
    if not math.isnan(item.score):
        for element in added:
            score = ElementTree.SubElement(element, "attribute", name="score")
            score.text = f"{item.score:.6f}"


def read_cvat(folder: Path) -> Iterator[tuple[Path, Segmentation]]:
    """Read the masks, polygons and boxes of a CVAT file, or of the one in a folder."""
    path = folder if folder.is_file() else folder / "annotations.xml"
    for image in ElementTree.parse(path).getroot().iter("image"):
        size = (int(image.attrib["height"]), int(image.attrib["width"]))
        groups: dict[str, list[ElementTree.Element]] = {}
        for index, element in enumerate(image):
            if element.tag in ("mask", "polygon", "box"):
                group = element.get("group_id", "0")
                key = f"{element.get('label')}/{group}" if group != "0" else f"#{index}"
                groups.setdefault(key, []).append(element)
        masks = [np.any([_fill(part, size) for part in parts], axis=0) for parts in groups.values()]
        firsts = [parts[0] for parts in groups.values()]
        result = Segmentation.from_masks(
            np.asarray(masks, dtype=np.bool_).reshape(-1, *size),
            labels=[first.attrib["label"] for first in firsts],
            scores=[float(first.findtext("attribute[@name='score']", "nan")) for first in firsts],
        )
        yield path.parent / "images" / image.attrib["name"], result


def _fill(element: ElementTree.Element, size: tuple[int, int]) -> NDArray[np.bool_]:
    mask = np.zeros(size, dtype=np.bool_)
    if element.tag == "mask":
        left, top, width, height = (
            int(element.attrib[key]) for key in ("left", "top", "width", "height")
        )
        runs = [int(run) for run in element.attrib["rle"].split(",")]
        inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
        mask[top : top + height, left : left + width] = inside.reshape(height, width)
        return mask
    if element.tag == "box":
        x0, y0, x1, y1 = (float(element.attrib[key]) for key in ("xtl", "ytl", "xbr", "ybr"))
        return fill_polygons([np.asarray([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])], size)
    points = [point.split(",") for point in element.attrib["points"].split(";")]
    return fill_polygons([np.asarray(points, dtype=np.float64)], size)
