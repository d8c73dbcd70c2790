"""Boxes that a detector found, in whatever form it gave them: arrays, COCO results, supervision.

Inside textsam boxes are half-open (x0, y0, x1, y1) in pixels of the original photo. COCO's (x, y,
width, height) is converted here. `supervision.Detections.xyxy` is taken as it stands: it holds the
detector's own continuous corners. (Only boxes that supervision measured on masks end at the last
pixel inside.)
"""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textsam.errors import PromptError
from textsam.results.columns import as_array
from textsam.values.geometry import boxes_from_xywh
from textsam.values.prompts import ArrayLike, make_prompt

__all__ = ["DetectedBoxes", "check_rows", "group_by_photo", "read_boxes", "read_results"]

_WANTED = (
    "wanted (N, 4) half-open x0, y0, x1, y1 in pixels, COCO results of one photo "
    '[{"image_id", "category_id", "bbox", "score"}, ...], or supervision.Detections'
)


@dataclass(frozen=True, kw_only=True, eq=False)
class DetectedBoxes:
    """N boxes of one photo.

    Attributes:
        boxes: (N, 4) float32 half-open x0, y0, x1, y1, original pixels, cut to the photo.
        labels: N names; None where the detector gave none.
        scores: (N,) float32, the detector's; NaN where it gave none.
    """

    boxes: NDArray[np.float32]
    labels: tuple[str | None, ...]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        """N."""
        return len(self.boxes)


def read_boxes(
    given: Any,
    size: tuple[int, int],
    *,
    labels: Sequence[str | None] | None = None,
    scores: ArrayLike | None = None,
    categories: Mapping[int, str] | None = None,
) -> DetectedBoxes:
    """Check boxes and give them one form.

    Args:
        given: (N, 4) array, list or tensor, half-open x0, y0, x1, y1; or COCO results of one photo;
            or `supervision.Detections`. None at all is an empty list.
        size: (H, W) of the photo; what hangs over its edge is cut off.
        labels: N names, for an array; the other forms bring their own.
        scores: N numbers, for an array.
        categories: Name of each category id of COCO, or class id of supervision that brings no
            `data["class_name"]`. Without it the number itself, as text, is the label.

    Raises:
        PromptError: Another form or shape, NaN, an empty box or one outside the photo (the message
            has its number), lengths that do not fit, results of several photos, or a category
            without a name.
    """
    own = hasattr(given, "xyxy") or _is_rows(given)
    if own and (labels is not None or scores is not None):
        raise PromptError(
            "these boxes bring labels and scores of their own; give labels and scores with an "
            "array of boxes only"
        )
    boxes: Any
    names: Sequence[str | None] | None
    numbers: Any
    if hasattr(given, "xyxy"):
        boxes, names, numbers = _from_supervision(given, categories)
    elif _is_rows(given):
        boxes, names, numbers = _from_results(given, categories)
    else:
        boxes, names, numbers = given, labels, scores
    checked = _checked_boxes(boxes, size)
    count = len(checked)
    return DetectedBoxes(
        boxes=checked, labels=_checked_labels(names, count), scores=_checked_scores(numbers, count)
    )


def read_results(path: str | Path) -> list[dict[str, Any]]:
    """Read a file of COCO detection results.

    Raises:
        ValueError: It is no such file; the message has the number of the row at fault.
        OSError: It cannot be read.
    """
    try:
        rows = json.loads(Path(path).read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if isinstance(rows, dict) and "annotations" in rows:
        raise ValueError(
            f"{path} holds annotations, not results; wanted a list of detections. "
            'For true boxes type: json.load(...)["annotations"]'
        )
    check_rows(rows, where=str(path))
    return list(rows)


def check_rows(rows: Any, *, where: str) -> None:
    """Refuse what is no list of COCO detections.

    Raises:
        PromptError: It is none; the message has the number of the first row at fault.
    """
    if not isinstance(rows, list | tuple):
        raise PromptError(f"{where} holds {type(rows).__name__}; wanted a list of COCO detections")
    for index, row in enumerate(rows):
        wanted = 'wanted {"image_id", "category_id", "bbox": [x, y, width, height], "score"}'
        if not isinstance(row, Mapping) or "image_id" not in row or "bbox" not in row:
            raise PromptError(f"{where}, row {index}: got {str(row)[:80]}; {wanted}")
        box = row["bbox"]
        numbers = isinstance(box, list | tuple) and all(isinstance(x, int | float) for x in box)
        if not numbers or len(box) != 4:
            raise PromptError(f"{where}, row {index}: got bbox {str(box)[:60]}; {wanted}")


def group_by_photo(rows: Iterable[Mapping[str, Any]]) -> dict[Hashable, list[Mapping[str, Any]]]:
    """COCO detections by `image_id`, photos in the order in which they first come."""
    groups: dict[Hashable, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["image_id"], []).append(row)
    return groups


def _is_rows(given: Any) -> bool:
    """Whether it is a list of COCO's objects; an empty list is none of them."""
    return isinstance(given, list | tuple) and any(isinstance(row, Mapping) for row in given)


def _from_results(
    rows: Sequence[Any], categories: Mapping[int, str] | None
) -> tuple[NDArray[Any], list[str | None], list[float]]:
    check_rows(rows, where="results")
    photos = list(group_by_photo(rows))
    if len(photos) > 1:
        raise PromptError(
            f"these results are of {len(photos)} photos ({str(photos[:3])[1:-1]}, ...); wanted "
            "those of one. For a whole file use textsam.tasks.instances.refine_results"
        )
    boxes = boxes_from_xywh(np.array([row["bbox"] for row in rows], dtype=np.float64))
    names = [_name(row.get("category_id"), categories) for row in rows]
    return boxes, names, [row.get("score", math.nan) for row in rows]


def _from_supervision(
    detections: Any, categories: Mapping[int, str] | None
) -> tuple[Any, list[str | None] | None, Any]:
    """By its attributes alone: supervision itself need not be there."""
    data = getattr(detections, "data", None) or {}
    numbers = getattr(detections, "class_id", None)
    names: list[str | None] | None = None
    if data.get("class_name") is not None:
        names = [str(name) for name in data["class_name"]]
    elif numbers is not None:
        names = [_name(int(number), categories) for number in as_array(numbers)]
    return detections.xyxy, names, getattr(detections, "confidence", None)


def _name(number: Any, categories: Mapping[int, str] | None) -> str | None:
    if number is None:
        return None
    if categories is None:
        return str(number)
    if number not in categories:
        raise PromptError(f"got category {number!r}; wanted one of {sorted(categories)[:20]}")
    return categories[number]


def _checked_boxes(given: Any, size: tuple[int, int]) -> NDArray[np.float32]:
    try:
        array = as_array([] if given is None else given)
    except (ValueError, TypeError) as error:  # lists of unequal length
        raise PromptError(f"boxes are no table of numbers ({error}); {_WANTED}") from error
    if array.size == 0 and array.ndim < 3 and array.shape[-1] in (0, 4):
        return np.zeros((0, 4), np.float32)
    if array.ndim != 2 or array.shape[1] != 4:
        hint = ". For one box type: [box]" if array.shape == (4,) else ""
        raise PromptError(f"boxes have shape {array.shape}; {_WANTED}{hint}")
    boxes = np.zeros(array.shape, np.float32)
    for index, row in enumerate(array):
        try:
            box = make_prompt(size, box=row).box
        except PromptError as error:
            raise PromptError(f"box {index}: {error}") from error
        assert box is not None
        boxes[index] = box
    return boxes


def _checked_labels(labels: Any, count: int) -> tuple[str | None, ...]:
    if labels is None:
        return (None,) * count
    wanted = f"wanted one name or None for each of {count} boxes"
    if isinstance(labels, str) or not all(isinstance(name, str | None) for name in labels):
        raise PromptError(f"got labels {str(labels)[:80]}; {wanted}")
    if len(labels) != count:
        raise PromptError(f"got {len(labels)} labels; {wanted}")
    return tuple(labels)


def _checked_scores(scores: Any, count: int) -> NDArray[np.float32]:
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
