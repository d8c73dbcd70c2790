"""Pascal VOC: `JPEGImages/`, `Annotations/`, `SegmentationObject|Class/`, `ImageSets/`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from textsam.pictures.draw import encode_picture, indexed_picture
from textsam.results.formats.set_photo import SetOptions, SetPhoto, find_photo
from textsam.results.mask_result import MaskResult
from textsam.results.polygons import fill_polygons, mask_to_polygons
from textsam.results.segmentation import Segmentation
from textsam.values.files import write_atomically

_VOID = 255
# VOC's colours: bits 0, 3, 6 of a number are high bits of red, bits 1, 4, 7 of green, 2, 5 of blue.
_PALETTE = [
    sum((number >> (3 * place + channel) & 1) << (7 - place) for place in range(3))
    for number in range(256)
    for channel in range(3)
]
_PICTURES = ("SegmentationObject", "SegmentationClass")


def write_voc(folder: Path, photos: Sequence[SetPhoto], options: SetOptions) -> None:
    """Write an XML and two palette PNGs for each photo.

    The XML holds each object's polygons (1-based, as VOC counts), which supervision reads and fills
    with their border; so masks that overlap are kept, too. PNGs have one number for each pixel:
    there the smaller mask is on top, and the numbers end at 254.
    """
    for photo in photos:
        place = options.place(photo, folder / "JPEGImages")
        result = photo.load()
        classes = np.asarray([options.number(label) + 1 for label in result.labels], dtype=np.int32)
        objects = result.label_map(by="mask")
        of_class = np.concatenate([[0], classes])[objects]
        for kind, numbers in zip(_PICTURES, (objects, of_class), strict=True):
            png = indexed_picture(np.where(numbers >= _VOID, _VOID, numbers))
            png.putpalette(_PALETTE, rawmode="RGB")
            path = options.new_file(folder / kind / f"{photo.stem}.png")
            write_atomically(path, encode_picture(png, ".png", exact=True))
        name = place.as_posix() if options.photos == "none" else photo.name
        root = _annotation(name, result, options)
        ElementTree.indent(root)
        text = ElementTree.tostring(root, encoding="utf-8") + b"\n"
        write_atomically(options.new_file(folder / "Annotations" / f"{photo.stem}.xml"), text)
    stems = "".join(f"{photo.stem}\n" for photo in photos)
    for task in ("Main", "Segmentation"):
        path = options.new_file(folder / "ImageSets" / task / "trainval.txt")
        write_atomically(path, stems.encode())
    # VOC's classes are known by heart; of other sets, tools read this list.
    rows = ["# label:color_rgb:parts:actions", "background:0,0,0::"]
    rows += [
        f"{name}:{','.join(map(str, _PALETTE[3 * i : 3 * i + 3]))}::"
        for i, name in enumerate(options.names, start=1)
    ]
    write_atomically(options.new_file(folder / "labelmap.txt"), "\n".join([*rows, ""]).encode())


def _annotation(name: str, result: Segmentation, options: SetOptions) -> ElementTree.Element:
    root = ElementTree.Element("annotation")
    height, width = result.size
    _add(root, "folder", "JPEGImages")
    _add(root, "filename", name)
    size = ElementTree.SubElement(root, "size")
    for key, value in (("width", width), ("height", height), ("depth", 3)):
        _add(size, key, value)
    _add(root, "segmented", 1)
    for item in result:
        _add_object(root, item, options)
    return root


def _add_object(root: ElementTree.Element, item: MaskResult, options: SetOptions) -> None:
    if not item.area:
        return
    element = ElementTree.SubElement(root, "object")
    _add(element, "name", options.names[options.number(item.label)])
    for key in ("truncated", "difficult", "occluded"):
        _add(element, key, 0)
    box = ElementTree.SubElement(element, "bndbox")
    x0, y0, x1, y1 = (int(side) for side in item.box)
    for key, value in (("xmin", x0 + 1), ("ymin", y0 + 1), ("xmax", x1), ("ymax", y1)):
        _add(box, key, value)
    for ring in mask_to_polygons(item.mask, tolerance=options.tolerance, centres=True):
        polygon = ElementTree.SubElement(element, "polygon")
        for index, (x, y) in enumerate(np.resize(ring, (max(3, len(ring)), 2)).tolist(), start=1):
            _add(polygon, f"x{index}", f"{x + 1:g}")
            _add(polygon, f"y{index}", f"{y + 1:g}")


def _add(parent: ElementTree.Element, key: str, value: object) -> None:
    ElementTree.SubElement(parent, key).text = str(value)


def read_voc(folder: Path) -> Iterator[tuple[Path, Segmentation]]:
    """Read the polygons of the XML files, or the PNGs' objects where there are none, as in VOC."""
    for path in sorted((folder / "Annotations").rglob("*.xml")):
        root = ElementTree.parse(path).getroot()
        stem = path.relative_to(folder / "Annotations").with_suffix("").as_posix()
        size = (int(root.findtext("size/height", "0")), int(root.findtext("size/width", "0")))
        objects = root.findall("object")
        names = [element.findtext("name", "") for element in objects]
        if any(element.find("polygon") is not None for element in objects) or not objects:
            masks = [_fill(element, size) for element in objects]
        else:
            png = folder / "SegmentationObject" / f"{stem}.png"
            if not png.is_file():
                continue  # most photos of VOC have boxes only
            with Image.open(png) as picture:
                numbers = np.asarray(picture)
            masks = [numbers == index for index in range(1, len(objects) + 1)]
        photo = folder / "JPEGImages" / root.findtext("filename", "")
        if not photo.is_file():
            # There is none if the photos were left where they are.
            with suppress(ValueError):
                photo = find_photo(folder / "JPEGImages", stem)
        stack = np.asarray(masks, dtype=np.bool_).reshape(-1, *size)
        yield photo, Segmentation.from_masks(stack, labels=names)


def _fill(element: ElementTree.Element, size: tuple[int, int]) -> NDArray[np.bool_]:
    rings = [
        np.asarray([float(corner.text or 0) for corner in polygon]).reshape(-1, 2) - 1
        for polygon in element.findall("polygon")
    ]
    return fill_polygons(rings, size, centres=True)
