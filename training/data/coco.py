"""COCO and LVIS: one JSON of instances and a folder of photos.

Foreign: what `textsam.results.coco_rows` reads, `iscrowd`, LVIS's `coco_url` and its lists of
negative categories. LVIS names have underscores for spaces; here they get their spaces back.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from textsam.errors import ImageError
from textsam.results.coco_rows import (
    BadRowError,
    RowProblems,
    annotation_mask,
    box_as_mask,
    category_names,
    declared_size,
    find_photo,
    plain_id,
    read_coco_file,
)

from .sample import LYING, ObjectMask, Sample, read_header, turn_upright
from .source import PackedRecords

logger = logging.getLogger(__name__)


class CocoSource:
    """Photos of a COCO or LVIS file, in the order of its `images`.

    The JSON is read whole once (COCO's train2017 needs some 3 GB while it is), then kept as text, a
    record a photo. Photos are opened only when they are asked for. A row that cannot be understood
    costs that row: lines in the log count them; `strict` makes the first one an error.
    """

    def __init__(
        self,
        instances: Path | str,
        images: Path | str,
        *,
        name: str | None = None,
        exhaustive: bool = False,
        strict: bool = False,
    ) -> None:
        path = Path(instances)
        self.name = name or path.stem
        self.images = Path(images)
        if not self.images.is_dir():
            raise NotADirectoryError(f"{self.name}: there is no folder {self.images} of photos")
        # The largest part of the memory; only packed records are kept.
        content = read_coco_file(path)
        rows = [row for row in content["images"] if isinstance(row, Mapping)]
        self.lvis = any("neg_category_ids" in row for row in rows)
        if self.lvis and exhaustive:
            raise ValueError(
                f"{path} is LVIS (it has neg_category_ids), where not every category was looked "
                "for in every photo. Leave exhaustive out"
            )
        self.exhaustive = exhaustive
        self.problems = RowProblems(strict=strict)
        names = category_names(content["categories"], self.problems)
        self.labels = {k: v.replace("_", " ") if self.lvis else v for k, v in names.items()}
        # Annotations that are a mask to train on, a crowd, a box alone, or nothing.
        self.shapes: Counter[str] = Counter()
        self._records = self._pack(content)
        if self.problems or self.shapes[_BOX] or self.shapes[_NONE]:
            logger.warning("%s: %s", self.name, self.describe_lack())

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Sample:
        record = self._records[index]
        image = record["image"]
        try:
            path = find_photo(self.images, image)
        except ImageError as error:
            raise ImageError(f"{self.name}: {error}") from error
        stored, orientation = read_header(path)
        rows = record["annotations"]
        upright = stored if orientation not in LYING else (stored[1], stored[0])
        size = _drawn_size(record, stored, upright)
        # Tools that ignore EXIF draw on the pixels as they are stored.
        lying = size == stored != upright
        found = [self._object(row, size) for row in rows]
        objects = [item for item in found if item is not None]
        if lying:
            objects = [replace(o, rle=turn_upright(o.rle, orientation)) for o in objects]
        return Sample(
            image_id=str(image["id"]),
            source=self.name,
            encoded=path,
            size=upright if lying else size,
            # A thing that is there without a mask must not count as absent.
            exhaustive=self.exhaustive and len(objects) == len(rows),
            void=None,
            objects=tuple(objects),
            absent=self._absent(image),
        )

    def describe_lack(self) -> str:
        """How many rows are no mask to train on, and why."""
        total = sum(self.shapes.values())
        parts = [f"{count} {what}" for what, count in sorted(self.shapes.items()) if what != _MASK]
        left_out = f"; {self.problems}" if self.problems else ""
        said = f"of {total} annotations {', '.join(parts) or 'all have a mask'}"
        return f"{said if total else 'it has no annotation of its photos'}{left_out}"

    def _object(self, annotation: Mapping[str, Any], size: tuple[int, int]) -> ObjectMask | None:
        """The object of a row; None for one that cannot be understood, which is counted.

        Where the mask is missing or damaged the box stands in, to be ignored, so that the object is
        still known to be there; COCO has polygons of fewer than three points.
        """
        rle, damage = None, None
        try:
            rle = annotation_mask(annotation, size)
        except BadRowError as error:
            damage = error
            self._count(error, annotation)
        rough = rle is None
        if rle is None:
            try:
                rle = box_as_mask(annotation, size)
            except BadRowError as error:
                if damage is None:
                    self._count(error, annotation)
                return None
        return ObjectMask(
            label=self.labels.get(annotation["category_id"], ""),
            kind="thing",
            rle=rle,
            ignore=rough or annotation["iscrowd"],
            group=annotation["group"],
        )

    def _count(self, error: BadRowError, annotation: Mapping[str, Any]) -> None:
        row = f"annotation {annotation['id']!a}: {error}"
        if self.problems.add(error.kind, row):
            logger.warning("%s: %s; only its box counts, if it has one", self.name, row)

    def _absent(self, image: Mapping[str, Any]) -> tuple[str, ...]:
        numbers = map(plain_id, image.get("neg_category_ids") or ())
        return tuple(self.labels[n] for n in numbers if n in self.labels)

    def _pack(self, content: Mapping[str, Any]) -> PackedRecords:
        """A record a photo, with the rows that belong to it."""
        photos: dict[Hashable, Mapping[str, Any]] = {}
        for index, image in enumerate(content["images"]):
            number = plain_id(image.get("id")) if isinstance(image, Mapping) else None
            if number is None or number in photos:
                self.problems.add("a photo without an id, or with one that is taken", f"{index}")
            else:
                photos[number] = {**{k: image[k] for k in _KEPT if k in image}, "id": number}
        rows: dict[Hashable, list[dict[str, Any]]] = {number: [] for number in photos}
        for index, annotation in enumerate(content["annotations"]):
            if isinstance(annotation, Mapping):
                self._add(annotation, rows)
            else:
                self.problems.add("no annotation", f"annotation {index}")
        # Popped, so that the lists of a large file do not stay beside their text.
        return PackedRecords(
            {"image": image, "annotations": rows.pop(number)} for number, image in photos.items()
        )

    def _add(
        self, annotation: Mapping[str, Any], rows: Mapping[Hashable, list[dict[str, Any]]]
    ) -> None:
        photo, category = plain_id(annotation.get("image_id")), annotation.get("category_id")
        row = f"annotation {annotation.get('id')!a}"
        if photo not in rows:
            where = f"{row}, which belongs to photo {photo!a}"
            self.problems.add("a photo that is not among the images", where)
            return
        if category is not None and plain_id(category) not in self.labels:
            where = f"{row}, of category {category!a}"
            self.problems.add("a category that has no name, kept without a label", where)
        crowd = bool(annotation.get("iscrowd"))
        shape, box = annotation.get("segmentation"), annotation.get("bbox")
        self.shapes["are crowds" if crowd else _MASK if shape else _BOX if box else _NONE] += 1
        rows[photo].append(
            {
                "id": annotation.get("id"),
                "category_id": plain_id(category),
                "segmentation": shape,
                "bbox": box,
                "iscrowd": crowd,
                "group": _group(annotation),
            }
        )


_KEPT = ("file_name", "coco_url", "path", "height", "width", "neg_category_ids")
_MASK, _BOX, _NONE = "have a mask", "have a bbox and no mask", "have neither a mask nor a bbox"


def _drawn_size(
    record: Mapping[str, Any], stored: tuple[int, int], upright: tuple[int, int]
) -> tuple[int, int]:
    """(H, W) of the pixels that masks were drawn on: the photo's, as it is stored or upright."""
    declared = declared_size(record["image"])
    said = [declared]
    for row in record["annotations"]:
        if isinstance(row["segmentation"], Mapping):
            said.append(declared_size(_sides(row["segmentation"].get("size"))))
    return next((size for size in said if size in (stored, upright)), declared) or upright


def _sides(size: Any) -> dict[str, Any]:
    two = isinstance(size, Sequence) and len(size) == 2
    return {"height": size[0], "width": size[1]} if two else {}


def _group(annotation: Mapping[str, Any]) -> str:
    """Its group: as an attribute, where annotation tools write what they know, or beside them."""
    attributes = annotation.get("attributes")
    inside = attributes.get("group") if isinstance(attributes, Mapping) else None
    return str(inside or annotation.get("group") or "")
