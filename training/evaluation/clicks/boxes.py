"""Boxes that `instances` turns into masks: the truth's own, those with noise, or a detector's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textsam.tasks.inputs import group_by_photo, read_results
from textsam.values.geometry import boxes_from_xywh
from textsam.values.rle import rle_box

from ...data import Sample
from ..data_sets import BadInputError, seeded_rng

_MIN_SIDE = 1.0  # pixels: noise may not turn a box into nothing


@dataclass(frozen=True, kw_only=True, eq=False)
class Boxes:
    """N boxes of a photo."""

    boxes: NDArray[np.float64]  # (N, 4) float64 half-open x0, y0, x1, y1, original pixels
    labels: list[str]  # N names
    scores: list[float]  # N scores
    # For each box the index of its object in the photo; None for a detector's.
    objects: list[int] | None = None

    def __len__(self) -> int:
        """N."""
        return len(self.boxes)


def true_boxes(sample: Sample, *, jitter: float = 0.0, seed: int = 0) -> Boxes:
    """Boxes of the photo's objects, crowds left out, each with score 1.

    Args:
        sample: The photo.
        jitter: Standard deviation of each coordinate's noise as a share of the box's side, as in
            the paper's training (Appendix A), but without its limit of 20 pixels. Boxes stay within
            the photo and at least a pixel long.
        seed: Decides the noise, together with the photo's id.
    """
    chosen = [k for k, o in enumerate(sample.objects) if not o.ignore and not o.rle.is_empty]
    boxes = np.array([rle_box(sample.objects[k].rle) for k in chosen], np.float64).reshape(-1, 4)
    if jitter > 0 and chosen:
        # (N, 4): the width for both x, the height for both y.
        sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        noise = seeded_rng(seed, sample.image_id).normal(size=boxes.shape)
        boxes = _valid(boxes + jitter * sides * noise, sample.size)
    return Boxes(
        boxes=boxes,
        labels=[sample.objects[index].label for index in chosen],
        scores=[1.0] * len(chosen),
        objects=chosen,
    )


class DetectorFile:
    """COCO detection results whose `image_id` is the photo's id in the set."""

    def __init__(self, path: Path, *, categories: Path | None = None) -> None:
        self.path = path
        try:
            rows = read_results(path)
        except (OSError, ValueError) as error:
            raise BadInputError(f"--boxes: {error}") from error
        self._names = None if categories is None else _read_categories(categories)
        self._rows = {str(key): group for key, group in group_by_photo(rows).items()}

    def check(self, samples: Sequence[Sample], labels: Sequence[str]) -> None:
        """Refuse a file of other photos or other categories, before anything is encoded."""
        ids = {sample.image_id for sample in samples}
        if not ids & self._rows.keys():
            raise BadInputError(
                f"--boxes {self.path}: none of its {len(self._rows)} image ids "
                f"({', '.join(list(self._rows)[:3])}, ...) is a photo to measure "
                f"({', '.join(sorted(ids)[:3])}, ...)"
            )
        for group in self._rows.values():
            for row in group:
                name = self._name(row)
                if self._names is None and name not in labels:
                    raise BadInputError(
                        f"--boxes {self.path}: category {name!r} is no label of this set; wanted "
                        f"one of {', '.join(labels[:8])}, ...; or name the detector's own: "
                        "--categories ANNOTATIONS.json"
                    )

    def boxes(self, sample: Sample) -> Boxes:
        """The boxes of a photo; empty for one without rows."""
        rows = self._rows.get(sample.image_id, [])
        # COCO's boxes are x, y, width, height; ours are half-open corners.
        corners = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
        return Boxes(
            boxes=boxes_from_xywh(corners),
            labels=[self._name(row) for row in rows],
            scores=[float(row.get("score", 1.0)) for row in rows],
        )

    def _name(self, row: Mapping[str, Any]) -> str:
        number = row.get("category_id")
        if self._names is not None and number in self._names:
            return self._names[number]
        if isinstance(number, str) and self._names is None:
            return number
        if self._names is None:
            raise BadInputError(
                f"--boxes {self.path}: category {number!r} has no name; wanted names as "
                "category_id, or a COCO file that names the numbers: --categories ANNOTATIONS.json"
            )
        if isinstance(number, str) and number in self._names.values():
            return number
        raise BadInputError(
            f"--boxes {self.path}: category {number!r} is unknown; --categories names "
            f"{sorted(self._names)[:8]}, ..."
        )


def _read_categories(path: Path) -> dict[int, str]:
    try:
        rows = json.loads(path.read_bytes())
        rows = rows["categories"] if isinstance(rows, dict) else rows
        return {row["id"]: str(row["name"]) for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInputError(
            f"--categories {path}: wanted a COCO file with categories "
            f'[{{"id": 1, "name": "person"}}, ...] ({type(error).__name__}: {error})'
        ) from error


def _valid(boxes: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """Corners in order, inside the photo, at least a pixel apart."""
    limit = np.array(size[::-1], np.float64)
    low = np.clip(np.minimum(boxes[:, :2], boxes[:, 2:]), 0, limit - _MIN_SIDE)
    high = np.clip(np.maximum(boxes[:, :2], boxes[:, 2:]), low + _MIN_SIDE, limit)
    return np.concatenate([low, high], axis=1)
