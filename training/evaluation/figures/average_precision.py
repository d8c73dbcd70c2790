"""AP and AR of phrases over exhaustive photos, COCO's way, by `faster-coco-eval`.

Masks are ranked by score over all photos of a phrase, so a mask in a photo that lacks the thing
costs as much as a poor one where it is. AP is the mean over IoU .50:.05:.95 and over phrases, AP50
that at .50, AR the recall that at most 100 masks of a phrase and photo reach, over the same IoUs
(cocodataset.org, "Detection Evaluation"). "Medium and large" is from 32^2 pixels of the stored
photo up: smaller objects, and unmatched masks as small, count neither for nor against. One thing
differs from COCO: crowds and void are cut out of both sides, as `match_masks` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from textsam.errors import require

from .coco_eval import coco_row, evaluate_masks
from .matching import Matches

__all__ = ["Detections"]

# COCO's areas, in pixels; of the ranges "all" comes first for faster-coco-eval.
_RANGES = {"": (0.0, 1e10), "_large": (32.0**2, 1e10)}
_MOST_MASKS = 100


class Detections:
    """Objects and scored masks of phrases, photo by photo, as COCO's format wants them.

    Raises:
        MissingExtraError: faster-coco-eval is not installed; said before hours are spent.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        require("faster_coco_eval", "eval")
        self._category = {label: index for index, label in enumerate(labels, start=1)}
        self._photo: dict[str, dict[str, Any]] = {}
        self._objects: list[dict[str, Any]] = []
        self._masks: list[dict[str, Any]] = []

    def add(self, image_id: str, label: str, matches: Matches) -> None:
        """Add what was found of a phrase in a photo, and what there is (nothing, if absent)."""
        height, width = matches.size
        photo = self._photo.setdefault(
            image_id, {"id": len(self._photo) + 1, "height": height, "width": width}
        )
        where = {"image_id": photo["id"], "category_id": self._category[label]}
        for rle in matches.truths:
            row = coco_row(rle) | where | {"id": len(self._objects) + 1, "iscrowd": 0}
            self._objects.append(row)
        scores = np.nan_to_num(matches.scores, nan=0.0)
        for rle, score, counted in zip(matches.rles, scores, matches.counted, strict=True):
            if counted and not rle.is_empty:
                row = coco_row(rle) | where | {"id": len(self._masks) + 1, "score": float(score)}
                self._masks.append(row)

    def figures(self) -> dict[str, Any]:
        """AP and AR.

        Returns:
            `ap50`, `ap`, `ar` over all sizes, `ap50_large`, `ap_large`, `ar_large` over medium and
            large objects, `phrases` and `phrases_large` (how many had such an object), and
            `labels` (`ap50_large` of each); None where there is no object.
        """
        evaluation = self._evaluate()
        figures: dict[str, Any] = {}
        for index, suffix in enumerate(_RANGES):
            # (IoU, recall, phrase) and (IoU, phrase); -1 where a phrase has no object.
            precision = evaluation["precision"][:, :, :, index, -1]
            recall = evaluation["recall"][:, :, index, -1]
            filled = np.flatnonzero(recall[0] > -1)
            each = precision[0][:, filled].mean(axis=0)
            some = bool(len(filled))
            figures |= {
                f"ap50{suffix}": float(each.mean()) if some else None,
                f"ap{suffix}": float(precision[:, :, filled].mean()) if some else None,
                f"ar{suffix}": float(recall[:, filled].mean()) if some else None,
                f"phrases{suffix}": len(filled),
            }
        names = list(self._category)
        labels = {names[k]: float(ap) for k, ap in zip(filled, each, strict=True)}
        return figures | {"labels": labels}

    def _evaluate(self) -> dict[str, Any]:
        """Arrays (IoU, recall, phrase, size, limit) "precision" and "recall", -1 for none."""
        categories = [{"id": index, "name": name} for name, index in self._category.items()]
        photos = [photo | {"file_name": name} for name, photo in self._photo.items()]
        return evaluate_masks(
            photos,
            categories,
            objects=self._objects,
            masks=self._masks,
            sizes={name or "all": bounds for name, bounds in _RANGES.items()},
            limits=[_MOST_MASKS],
        ).arrays()
