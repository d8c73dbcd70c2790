"""Masks in the formats of COCO, SA-1B and supervision, and from label maps.

Only this file knows their names and conventions. Boxes are half-open in textsam; COCO has
(x, y, width, height), supervision and SA-1B have inclusive ends. `Segmentation.save` writes YOLO's
`.txt` (`polygons`); `Segmentation.label_map` makes label maps.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from textsam.results.coco_annotations import plain_number
from textsam.results.coco_rows import BadRowError, RowProblems, annotation_mask, plain_id
from textsam.results.foreign_objects import class_labels, inclusive_ends
from textsam.results.segmentation import Segmentation
from textsam.values.geometry import as_array, boxes_to_xywh
from textsam.values.rle import (
    RLE,
    encode_mask,
    encode_masks,
    merge_rles,
    rle_from_json,
    rle_to_json,
)

__all__ = [
    "from_coco",
    "from_label_map",
    "from_sa1b",
    "from_supervision",
    "to_coco",
    "to_sa1b",
    "to_supervision",
]


logger = logging.getLogger(__name__)


def to_coco(
    result: Segmentation,
    *,
    image_id: int,
    categories: Mapping[str, int],
    first_id: int = 1,
    polygons: bool = False,
    tolerance: float = 0.0,
) -> list[dict[str, Any]]:
    """Make COCO annotations; the same as `result.to_coco(...)`."""
    return result.to_coco(
        image_id=image_id,
        categories=categories,
        first_id=first_id,
        polygons=polygons,
        tolerance=tolerance,
    )


def from_coco(
    annotations: Iterable[Mapping[str, Any]],
    size: tuple[int, int],
    *,
    categories: Mapping[int, str] | None = None,
    strict: bool = False,
) -> Segmentation:
    """Read the COCO annotations, or results, of one image, as tools write them.

    Args:
        annotations: With `segmentation` as polygons or as run-length code of either kind; crowds
            included.
        size: (H, W) of the image, which COCO keeps in its list of images.
        categories: Name of each category id; without it, masks have no label.
        strict: Raise for the first row that lacks something. Otherwise a row without a mask of
            this size is left out, a category without a name is no label, and one line in the log
            counts both.

    Raises:
        ValueError: There are rows and none has a mask of this size; or any lacks one, if strict.
    """
    if isinstance(annotations, Mapping):
        raise ValueError(
            f"from_coco: got an object with {sorted(map(str, annotations))[:5]}; wanted a list: "
            'the rows of its "annotations" that are of one image'
        )
    names = None if categories is None else {plain_id(k): v for k, v in categories.items()}
    problems = RowProblems(strict=strict)
    rles: list[RLE] = []
    labels: list[str | None] = []
    scores: list[float] = []
    index = -1
    for index, annotation in enumerate(annotations):
        row = f"annotation {annotation.get('id', index)!a}"
        try:
            rles.append(_coco_rle(annotation, size))
        except BadRowError as error:
            problems.add(error.kind, f"{row}, {error}")
            continue
        number = plain_id(annotation.get("category_id"))
        if names is not None and number not in names:
            problems.add(
                "a category that has no name, kept without a label",
                f"{row} with category_id {number!r}; wanted one of {list(names)}",
            )
        labels.append(None if names is None else names.get(number))
        score = annotation.get("score")
        scores.append(math.nan if score is None else float(score))
    if problems:
        logger.warning("from_coco: of %d rows %s", index + 1, problems)
    if index >= 0 and not rles:
        raise ValueError(
            f"from_coco: none of {index + 1} rows has a mask of size {tuple(size)} (height, "
            f"width); wanted a run-length code or polygons: {problems}"
        )
    return Segmentation(size, rles, scores=scores, labels=labels)


def to_sa1b(result: Segmentation, *, image_id: int, file_name: str) -> dict[str, Any]:
    """Make the JSON object of one SA-1B image (format of the data set's `README`).

    SA-1B has no labels. textsam keeps no clicks and crops, so that `point_coords` is empty and
    `crop_box` is the whole image. Unknown numbers are left out. Boxes are (x, y, w, h) with
    inclusive ends as in the released code: w and h are one less than in COCO.
    """
    height, width = result.size
    annotations = []
    for index, item in enumerate(result):
        annotation: dict[str, Any] = {
            "id": index + 1,
            "segmentation": rle_to_json(item.rle),
            "area": item.area,
            "bbox": [float(side) for side in boxes_to_xywh(inclusive_ends(item.box[None])[0])],
            "point_coords": [],
            "crop_box": [0.0, 0.0, float(width), float(height)],
        }
        for name, value in (("predicted_iou", item.iou), ("stability_score", item.stability)):
            if not math.isnan(value):
                annotation[name] = value
        annotations.append(annotation)
    number = plain_number(image_id)
    image = {"image_id": number, "width": width, "height": height, "file_name": file_name}
    return {"image": image, "annotations": annotations}


def from_sa1b(payload: Mapping[str, Any]) -> Segmentation:
    """Read the JSON object of one SA-1B image; boxes are computed from the masks.

    Raises:
        ValueError: It is no such object, or a mask is damaged.
    """
    try:
        size = (int(payload["image"]["height"]), int(payload["image"]["width"]))
        annotations = list(payload["annotations"])
        rles = [rle_from_json(annotation["segmentation"]) for annotation in annotations]
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"from_sa1b: got no SA-1B object ({type(error).__name__}: {error}); wanted "
            '{"image": {"height", "width", ...}, "annotations": [{"segmentation", ...}]}'
        ) from error
    return Segmentation(
        size,
        rles,
        iou=[annotation.get("predicted_iou", math.nan) for annotation in annotations],
        stability=[annotation.get("stability_score", math.nan) for annotation in annotations],
    )


def to_supervision(result: Segmentation, **options: Any) -> Any:
    """Make `supervision.Detections`; the same as `result.to_supervision()`."""
    return result.to_supervision(**options)


def from_supervision(
    detections: Any,
    size: tuple[int, int] | None = None,
    *,
    names: Mapping[int, str] | Sequence[str] | None = None,
) -> Segmentation:
    """Read `supervision.Detections` that have masks, dense or compact.

    Labels come from `data["class_name"]`, or else from the class ids by `names`, or else they are
    the class ids as text ("3").

    Args:
        detections: K `supervision.Detections`.
        size: (H, W), needed only if there is no mask that has it.
        names: Class names by class id. Give the same to `to_supervision` to get the ids back.

    Raises:
        ValueError: Boxes without masks, neither masks nor a size, or an id without a name.
    """
    masks = detections.mask
    if masks is None or not len(masks):
        if len(detections.xyxy):
            raise ValueError("from_supervision: these detections have boxes but no masks")
        if size is None:
            raise ValueError("from_supervision: no detections, so give size=(height, width)")
        return Segmentation(size, [])
    # One at a time: compact masks may not fit into memory all at once.
    rles = [encode_mask(np.asarray(masks[i], dtype=np.bool_)) for i in range(len(masks))]
    return Segmentation(
        rles[0].size,
        rles,
        scores=detections.confidence,
        labels=class_labels(detections.data.get("class_name"), detections.class_id, names),
    )


def from_label_map(
    numbers: ArrayLike,
    *,
    labels: Mapping[int, str] | None = None,
    background: int = 0,
    ignore: Sequence[int] = (),
) -> Segmentation:
    """Make one mask for each number in a label map, in ascending order.

    Args:
        numbers: (H, W) integers, e.g. a palette PNG of PASCAL VOC read with
            `np.asarray(PIL.Image.open(...))` (not `load_image`, which turns it into colours).
        labels: Label of each number; without it, masks have no label.
        background: The number that is no mask.
        ignore: Further numbers that are no mask, e.g. PASCAL VOC's 255 for "void".

    Raises:
        ValueError: Another shape or dtype, or a number has no label.
    """
    array = as_array(numbers)
    if array.ndim != 2 or array.dtype.kind not in "bui":
        raise ValueError(
            f"from_label_map: got {array.dtype} of shape {array.shape}; wanted integers (H, W)"
        )
    # bool counts as integers here: False is the background, True the only mask.
    array = array.astype(np.int64)
    present = [int(n) for n in np.unique(array) if n != background and n not in ignore]
    nameless = [] if labels is None else [n for n in present if n not in labels]
    if nameless:
        raise ValueError(
            f"from_label_map: numbers {nameless[:5]} have no label; name them, or ignore= them"
        )
    return Segmentation(
        (array.shape[0], array.shape[1]),
        [encode_masks((array == number)[None])[0] for number in present],
        labels=None if labels is None else [labels[number] for number in present],
    )


def _coco_rle(annotation: Mapping[str, Any], size: tuple[int, int]) -> RLE:
    rle = annotation_mask(annotation, size)
    # `to_coco` writes an empty mask as no polygon; a box alone is no mask.
    if rle is None and annotation.get("segmentation") == [] and not annotation.get("area"):
        return merge_rles([], size)
    if rle is None:
        raise BadRowError("no mask: neither a run-length code nor polygons of three points")
    return rle
