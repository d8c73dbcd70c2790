"""Masks as the objects of other libraries: supervision's detections, a pandas table, a tensor."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from textsam.errors import MissingExtraError, require
from textsam.results.mask_table import NUMBERS, MaskTable
from textsam.values.rle import decode_rles, rle_areas, rle_boxes, rle_to_json

if TYPE_CHECKING:
    import torch

__all__ = ["class_labels", "inclusive_ends", "to_detections", "to_frame", "to_tensor"]

ClassNames = Mapping[int, str] | Sequence[str]


def to_detections(table: MaskTable, *, names: ClassNames | None, compact: bool) -> Any:
    """`supervision.Detections` of masks; see `Segmentation.to_supervision`."""
    supervision = _import_supervision()
    named = [label for label in table.labels if label is not None]
    # supervision has a class for every mask or for none.
    if named and len(named) < len(table.labels):
        raise ValueError("to_supervision: some masks have a label and some have none; choose first")
    ids = {name: number for number, name in _numbered(table.names() if names is None else names)}
    nameless = [label for label in named if label not in ids]
    if nameless:
        raise ValueError(f"to_supervision: label {nameless[0]!r} is not in names {list(ids)}")
    # Without masks all columns are empty: loops over them then need no special case.
    has_labels, has_scores = bool(named) or not table.rles, not np.isnan(table.scores).any()
    boxes = inclusive_ends(rle_boxes(table.rles).astype(np.float32))
    return supervision.Detections(
        xyxy=boxes,
        mask=_masks(supervision, table, boxes, compact=compact),
        confidence=table.scores.copy() if has_scores else None,
        class_id=np.asarray([ids[label] for label in named], dtype=np.int64)
        if has_labels
        else None,
        data={"class_name": np.asarray(named, dtype=np.str_)} if has_labels else {},
    )


def to_frame(table: MaskTable) -> Any:
    """A `pandas.DataFrame` with a row for each mask; see `Segmentation.to_pandas`."""
    pandas = require("pandas", "search")
    boxes = rle_boxes(table.rles)
    columns: dict[str, Any] = {
        "label": list(table.labels),
        **{NUMBERS[name]: values.copy() for name, values in table.numbers.items()},
        "area": rle_areas(table.rles),
        **{side: boxes[:, index] for index, side in enumerate(("x0", "y0", "x1", "y1"))},
        "rle": [rle_to_json(rle) for rle in table.rles],
    }
    return pandas.DataFrame(columns)


def to_tensor(table: MaskTable, device: str | torch.device) -> torch.Tensor:
    """Masks (K, H, W) as a bool tensor of its own, which may be written to."""
    import torch

    return torch.from_numpy(decode_rles(table.rles, table.size)).to(device)


def inclusive_ends(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Half-open boxes (K, 4) to boxes with inclusive ends; empty ones stay zeros."""
    ends = boxes.copy()
    ends[:, 2:] = np.maximum(boxes[:, 2:] - 1, boxes[:, :2])
    return ends


def class_labels(
    class_names: ArrayLike | None, class_ids: ArrayLike | None, names: ClassNames | None
) -> list[str] | None:
    """Labels of detections, from their names or from their ids; None if they have neither."""
    if class_names is not None:
        return [str(name) for name in np.asarray(class_names)]
    if class_ids is None:
        return None
    ids = [int(number) for number in np.asarray(class_ids)]
    if names is None:
        return [str(number) for number in ids]
    known = dict(_numbered(names))
    if nameless := [number for number in ids if number not in known]:
        raise ValueError(f"from_supervision: class id {nameless[0]} has no name in {known}")
    return [known[number] for number in ids]


def _numbered(names: ClassNames) -> list[tuple[int, str]]:
    return list(names.items() if isinstance(names, Mapping) else enumerate(names))


def _masks(
    supervision: ModuleType, table: MaskTable, boxes: NDArray[np.float32], *, compact: bool
) -> Any:
    """Compact masks where this supervision has them, or else an array (K, H, W)."""
    make = getattr(getattr(supervision, "CompactMask", None), "from_coco_rle", None)
    if make is None or not compact:
        return decode_rles(table.rles, table.size)
    return make([rle_to_json(rle) for rle in table.rles], boxes, table.size)


def _import_supervision() -> ModuleType:
    try:
        return importlib.import_module("supervision")
    except ImportError as error:
        # No extra of textsam installs it: who needs its Detections has it already.
        raise MissingExtraError(
            "to_supervision needs supervision, which is not installed. "
            "Type: pip install supervision",
            name="supervision",
        ) from error
