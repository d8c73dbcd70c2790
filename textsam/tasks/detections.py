"""A detector's boxes in one form: from arrays, COCO results or supervision.

Inside textsam, boxes are half-open (x0, y0, x1, y1) in pixels of the original photo. COCO's (x, y,
width, height) is converted here. `supervision.Detections.xyxy` is taken as it is: it contains the
detector's own continuous corners.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textsam.errors import PromptError
from textsam.tasks.inputs import check_results, group_by_photo
from textsam.values.geometry import as_array, boxes_from_xywh
from textsam.values.prompts import ArrayLike, make_prompts

__all__ = ["DetectedBoxes", "read_boxes"]

_WANTED = (
    "wanted (N, 4) half-open x0, y0, x1, y1 in pixels, COCO results of one photo "
    '[{"image_id", "category_id", "bbox", "score"}, ...], or supervision.Detections'
)


@dataclass(frozen=True, kw_only=True, eq=False)
class DetectedBoxes:
    """N boxes of one photo."""

    # (N, 4) half-open x0, y0, x1, y1 in original pixels, cut off at the photo's border
    boxes: NDArray[np.float32]
    labels: tuple[str | None, ...]  # None where the detector gave none
    scores: NDArray[np.float32]  # (N,), the detector's; NaN where it gave none

    def __len__(self) -> int:
        """Number of boxes N."""
        return len(self.boxes)


def read_boxes(
    boxes: Any,
    size: tuple[int, int],
    *,
    labels: Sequence[str | None] | None = None,
    scores: ArrayLike | None = None,
    categories: Mapping[int, str] | None = None,
) -> DetectedBoxes:
    """Check boxes and bring them into one form.

    Args:
        boxes: (N, 4) array, list or tensor, half-open x0, y0, x1, y1; or COCO results of one photo;
            or `supervision.Detections`. None means no boxes.
        size: (H, W) of the photo; boxes are cut off at its border.
        labels: N names, with an array; the other forms have their own.
        scores: N numbers, with an array.
        categories: Names by COCO category id, or by class id for supervision without
            `data["class_name"]`. Without it the number, as text, is the label.

    Raises:
        PromptError: The form or shape is wrong; a box contains NaN, is empty or lies outside the
            photo (the message gives its number); lengths differ; the results are of several photos;
            or a category has no name.
    """
    is_supervision = hasattr(boxes, "xyxy")
    # An empty list may be of either kind.
    is_coco = isinstance(boxes, list | tuple) and any(isinstance(row, Mapping) for row in boxes)
    if (is_supervision or is_coco) and (labels is not None or scores is not None):
        raise PromptError(
            "these boxes have labels and scores of their own; give labels and scores with an array "
            "of boxes only"
        )
    values: tuple[Any, Any, Any] = (boxes, labels, scores)
    if is_supervision:
        values = _from_supervision(boxes, categories)
    elif is_coco:
        values = _from_results(boxes, categories)
    corners = _check_boxes(values[0], size)
    return DetectedBoxes(
        boxes=corners,
        labels=_check_labels(values[1], len(corners)),
        scores=_check_scores(values[2], len(corners)),
    )


def _from_results(
    rows: Sequence[Any], categories: Mapping[int, str] | None
) -> tuple[NDArray[Any], list[str | None], list[float]]:
    check_results(rows, where="results")
    photos = list(group_by_photo(rows))
    if len(photos) > 1:
        raise PromptError(
            f"these results are of {len(photos)} photos ({str(photos[:3])[1:-1]}, ...); wanted "
            "those of one. For a whole file use textsam.tasks.instances.refine_results"
        )
    boxes = boxes_from_xywh(np.array([row["bbox"] for row in rows], dtype=np.float64))
    labels = [_label(row.get("category_id"), categories) for row in rows]
    return boxes, labels, [row.get("score", math.nan) for row in rows]


def _from_supervision(
    detections: Any, categories: Mapping[int, str] | None
) -> tuple[Any, list[str | None] | None, Any]:
    # Only attributes are read, so that supervision need not be installed.
    data = getattr(detections, "data", None) or {}
    class_ids = getattr(detections, "class_id", None)
    labels: list[str | None] | None = None
    if data.get("class_name") is not None:
        labels = [str(name) for name in data["class_name"]]
    elif class_ids is not None:
        labels = [_label(int(number), categories) for number in as_array(class_ids)]
    return detections.xyxy, labels, getattr(detections, "confidence", None)


def _label(number: Any, categories: Mapping[int, str] | None) -> str | None:
    if number is None or categories is None:
        return None if number is None else str(number)
    if number not in categories:
        raise PromptError(f"got category {number!r}; wanted one of {sorted(categories)[:20]}")
    return categories[number]


def _check_boxes(boxes: Any, size: tuple[int, int]) -> NDArray[np.float32]:
    try:
        array = as_array([] if boxes is None else boxes)
    except (ValueError, TypeError) as error:  # lists of unequal length
        raise PromptError(f"boxes are not a table of numbers ({error}); {_WANTED}") from error
    if array.size == 0 and array.ndim < 3 and array.shape[-1] in (0, 4):
        return np.zeros((0, 4), np.float32)
    if array.ndim != 2 or array.shape[1] != 4:
        hint = ". For one box type: [box]" if array.shape == (4,) else ""
        raise PromptError(f"boxes have shape {array.shape}; {_WANTED}{hint}")
    # The same checks as for boxes that a user draws.
    corners = [prompt.box for prompt in make_prompts(size, boxes=array)]
    return np.array(corners, dtype=np.float32)


def _check_labels(labels: Any, count: int) -> tuple[str | None, ...]:
    if labels is None:
        return (None,) * count
    wanted = f"wanted one name or None for each of {count} boxes"
    if isinstance(labels, str) or not all(isinstance(name, str | None) for name in labels):
        raise PromptError(f"got labels {str(labels)[:80]}; {wanted}")
    if len(labels) != count:
        raise PromptError(f"got {len(labels)} labels; {wanted}")
    return tuple(labels)


def _check_scores(scores: Any, count: int) -> NDArray[np.float32]:
    if scores is None:
        return np.full(count, np.nan, np.float32)
    wanted = f"wanted a finite number, or NaN for unknown, for each of {count} boxes"
    try:
        array = as_array(scores).astype(np.float32)
    except (ValueError, TypeError) as error:
        raise PromptError(f"got scores {str(scores)[:80]}; {wanted}") from error
    if array.shape != (count,) and not (count == 0 and array.size == 0):
        raise PromptError(f"got scores of shape {array.shape}; {wanted}")
    if np.isinf(array).any():
        raise PromptError(f"got an infinite score at {int(np.isinf(array).argmax())}; {wanted}")
    return array.reshape(count)
