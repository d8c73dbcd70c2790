"""COCO and LVIS: one JSON of instances and a folder of photos.

Foreign: polygons and both run-length codes, `iscrowd`, xywh boxes, LVIS's `coco_url` and its lists
of negative categories. LVIS names have underscores for spaces; here they get their spaces back.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from pycocotools import mask as coco

from textsam.errors import ImageError
from textsam.values.rle import RLE, merge_rles, rle_from_json

from .sample import ObjectMask, Sample
from .source import PackedRecords


class CocoSource:
    """Photos of a COCO or LVIS file, in the order of its `images`.

    The JSON is read whole once (COCO's train2017 needs some 3 GB while it is), then kept as text, a
    record a photo. Photos are opened only when they are asked for.
    """

    def __init__(
        self,
        instances: Path | str,
        images: Path | str,
        *,
        name: str | None = None,
        exhaustive: bool = False,
    ) -> None:
        path = Path(instances)
        self.name = name or path.stem
        self.images = Path(images)
        if not self.images.is_dir():
            raise NotADirectoryError(f"{self.name}: there is no folder {self.images} of photos")
        # The largest part of the memory; only packed records are kept.
        content = _read_json(path)
        self.lvis = any("neg_category_ids" in image for image in content["images"])
        if self.lvis and exhaustive:
            raise ValueError(
                f"{path} is LVIS (it has neg_category_ids), where not every category was looked "
                "for in every photo. Leave exhaustive out"
            )
        self.exhaustive = exhaustive
        self.labels = {
            int(c["id"]): str(c["name"]).replace("_", " ") if self.lvis else str(c["name"])
            for c in content["categories"]
        }
        self._records = _records(content)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Sample:
        record = self._records[index]
        image = record["image"]
        try:
            size = (int(image["height"]), int(image["width"]))
            return Sample(
                image_id=str(image["id"]),
                source=self.name,
                encoded=self._file(image),
                size=size,
                exhaustive=self.exhaustive,
                void=None,
                objects=tuple(self._object(a, size) for a in record["annotations"]),
                absent=tuple(self.labels[i] for i in image.get("neg_category_ids", ())),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{self.name}: photo {image.get('id')!r} lacks or garbles {error}"
            ) from error

    def _object(self, annotation: Mapping[str, Any], size: tuple[int, int]) -> ObjectMask:
        rle, rough = rle_from_coco(annotation, size)
        return ObjectMask(
            label=self.labels[annotation["category_id"]],
            kind="thing",
            rle=rle,
            ignore=rough or bool(annotation.get("iscrowd", 0)),
            group=annotation["group"],
        )

    def _file(self, image: Mapping[str, Any]) -> Path:
        """Where a photo is: by `file_name`, or by the end of LVIS's `coco_url`."""
        named = PurePosixPath(image.get("file_name") or image["coco_url"])
        choices = [self.images / named.name, self.images.joinpath(*named.parts[-2:])]
        if image.get("file_name"):
            choices.insert(0, self.images / named)
        for path in choices:
            if path.is_file():
                return path
        raise ImageError(f"{self.name}: there is no photo {choices[0]}")


def rle_from_coco(annotation: Mapping[str, Any], size: tuple[int, int]) -> tuple[RLE, bool]:
    """The mask of a COCO annotation: polygons, uncompressed or compressed runs.

    Polygons of fewer than three points are left out; COCO has some. Where no other is left, the
    filled box stands in, so that the object is still known to be there.

    Returns:
        The mask, and whether it is only the box.
    """
    shape = annotation["segmentation"]
    if isinstance(shape, Mapping):
        rle = rle_from_json(shape)
        if rle.size != size:
            raise ValueError(
                f"annotation {annotation.get('id')!r}: its mask has size {rle.size}; wanted {size} "
                "(height, width), as its photo"
            )
        return rle, False
    polygons = [list(map(float, p)) for p in shape if len(p) >= 6 and len(p) % 2 == 0]
    rough = not polygons
    if rough:
        x, y, width, height = map(float, annotation["bbox"])
        polygons = [[x, y, x + width, y, x + width, y + height, x, y + height]]
    if not all(math.isfinite(value) for polygon in polygons for value in polygon):
        raise ValueError(f"annotation {annotation.get('id')!r}: a coordinate is not finite")
    codes = coco.frPyObjects(polygons, *size)
    return merge_rles([RLE(size, code["counts"]) for code in codes], size), rough


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    wanted = ("images", "annotations", "categories")
    got = sorted(content) if isinstance(content, dict) else type(content).__name__
    if not isinstance(content, dict) or not all(isinstance(content.get(k), list) for k in wanted):
        raise ValueError(f"{path} holds {got}; wanted the lists {', '.join(wanted)}, as COCO has")
    return content


def _records(content: Mapping[str, Any]) -> PackedRecords:
    of: dict[Any, list[Mapping[str, Any]]] = {image["id"]: [] for image in content["images"]}
    keys: Sequence[str] = ("id", "category_id", "segmentation", "bbox", "iscrowd")
    for annotation in content["annotations"]:
        if annotation.get("image_id") not in of:
            raise ValueError(
                f"annotation {annotation.get('id')!r} belongs to photo "
                f"{annotation.get('image_id')!r}, which is not among the images"
            )
        kept = {k: annotation[k] for k in keys if k in annotation}
        of[annotation["image_id"]].append({**kept, "group": _group(annotation)})
    keys = ("id", "file_name", "coco_url", "height", "width", "neg_category_ids")
    return PackedRecords(
        {
            "image": {k: image[k] for k in keys if k in image},
            "annotations": of.pop(image["id"], []),
        }
        for image in content["images"]
    )


def _group(annotation: Mapping[str, Any]) -> str:
    """Its group: as an attribute, where annotation tools write what they know, or beside them."""
    attributes = annotation.get("attributes")
    inside = attributes.get("group") if isinstance(attributes, Mapping) else None
    return str(inside or annotation.get("group") or "")
