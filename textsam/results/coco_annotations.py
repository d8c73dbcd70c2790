"""COCO annotations of masks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from textsam.results.coco_rows import annotation_mask
from textsam.results.mask_result import MaskResult
from textsam.results.polygons import mask_to_polygons
from textsam.values.geometry import boxes_to_xywh
from textsam.values.rle import merge_rles, rle_area, rle_box, rle_to_json

__all__ = ["plain_number", "to_annotations"]


def to_annotations(
    masks: Sequence[MaskResult],
    *,
    image_id: int,
    categories: Mapping[str, int] | None,
    first_id: int,
    polygons: bool,
    tolerance: float,
) -> list[dict[str, Any]]:
    """COCO annotations, one per mask; see `Segmentation.to_coco`."""
    # Without names there is one category for everything.
    numbers: dict[str | None, int] = {None: 1} if categories is None else dict(categories.items())
    annotations = []
    for index, item in enumerate(masks):
        if item.label not in numbers:
            raise ValueError(
                f"to_coco: mask {index} has label {item.label!r}; wanted one of the categories "
                f"{sorted(map(str, numbers))}"
            )
        segmentation: Any = rle_to_json(item.rle)
        written = item.rle
        if polygons:
            rings = mask_to_polygons(item.mask, tolerance=tolerance)
            segmentation = [[float(place) for place in ring.ravel()] for ring in rings]
            if tolerance > 0:
                shape = annotation_mask({"segmentation": segmentation}, item.rle.size)
                written = shape or merge_rles([], item.rle.size)
        annotation: dict[str, Any] = {
            "id": int(first_id) + index,
            "image_id": plain_number(image_id),
            "category_id": plain_number(numbers[item.label]),
            "segmentation": segmentation,
            "area": rle_area(written),
            "bbox": [float(side) for side in boxes_to_xywh(rle_box(written))],
            "iscrowd": 0,
        }
        if not math.isnan(item.score):
            annotation["score"] = float(item.score)
        annotations.append(annotation)
    return annotations


def plain_number(number: Any) -> Any:
    """A numpy number as Python's, which JSON can write."""
    return number.item() if isinstance(number, np.generic) else number
