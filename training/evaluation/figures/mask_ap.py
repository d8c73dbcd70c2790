"""Mask AP of labelled, scored masks, COCO's way, with its bootstrap interval over photos.

AP is the mean over IoU .50:.05:.95 and over labels of the precision at 101 recalls, of at most 100
masks of a label and photo (cocodataset.org, "Detection Evaluation"); `ignore` objects are COCO's
crowds. Pixels that are void and no crowd are cut out of both sides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textsam.errors import require
from textsam.values.rle import RLE, decode_rle, decode_rles, encode_masks, merge_rles

from ...data import Sample
from .coco_eval import SIZES, coco_row, evaluate_masks

__all__ = ["MaskAP", "undecided_pixels"]

_DRAWS = 200  # each gathers all photos anew; percentiles at 2.5 need no more
_TAIL = 2.5


class MaskAP:
    """Objects and masks, photo by photo.

    Raises:
        MissingExtraError: faster-coco-eval is not installed; said before hours are spent.
    """

    def __init__(self, labels: Iterable[str]) -> None:
        require("faster_coco_eval", "eval")
        self._category = {label: index for index, label in enumerate(labels, start=1)}
        self._photos: list[dict[str, Any]] = []
        self._objects: list[dict[str, Any]] = []
        self._masks: list[dict[str, Any]] = []

    def add(
        self,
        sample: Sample,
        rles: Sequence[RLE],
        *,
        labels: Sequence[str],
        scores: Sequence[float],
    ) -> None:
        """Add a photo, its objects, and the masks that were found in it.

        Args:
            sample: The photo.
            rles: K masks of its size.
            labels: K labels; masks of a label that is no category are left out, for they change no
                figure.
            scores: K numbers; what is not known (NaN) counts as 0.
        """
        number = len(self._photos) + 1
        self._photos.append({"id": number, "height": sample.size[0], "width": sample.size[1]})
        void = undecided_pixels(sample)
        truths = _without([o.rle for o in sample.objects], void, sample.size)
        for o, rle in zip(sample.objects, truths, strict=True):
            if not rle.is_empty:
                self._objects.append(
                    coco_row(rle)
                    | {"id": len(self._objects) + 1, "image_id": number}
                    | {"category_id": self._category[o.label], "iscrowd": int(o.ignore)}
                )
        found = _without(rles, void, sample.size)
        for rle, label, score in zip(found, labels, scores, strict=True):
            if label in self._category and not rle.is_empty:
                self._masks.append(
                    coco_row(rle)
                    | {"id": len(self._masks) + 1, "image_id": number}
                    | {"category_id": self._category[label]}
                    | {"score": float(np.nan_to_num(score))}
                )

    def figures(self, *, seed: int = 0) -> dict[str, Any]:
        """AP.

        Returns:
            `ap`, `ap50`, `ap75`, `ap_small`, `ap_medium`, `ap_large`, None where there is no such
            object, and `ap_interval` (low, high): 95%, over photos drawn again.
        """
        if not self._photos:
            names = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ap_interval")
            return dict.fromkeys(names)
        categories = [{"id": index, "name": name} for name, index in self._category.items()]
        evaluation = evaluate_masks(
            self._photos, categories, objects=self._objects, masks=self._masks
        )
        precision = evaluation.arrays()["precision"][..., -1]
        figures: dict[str, Any] = {
            "ap": _known_mean(precision[..., 0]),
            "ap50": _known_mean(precision[0, ..., 0]),
            "ap75": _known_mean(precision[5, ..., 0]),
        }
        for index, name in enumerate(list(SIZES)[1:], start=1):
            figures[f"ap_{name}"] = _known_mean(precision[..., index])
        rng = np.random.default_rng(seed)
        drawn = []
        for _ in range(_DRAWS):
            photos = rng.integers(len(self._photos), size=len(self._photos)).tolist()
            ap = _known_mean(evaluation.arrays(photos)["precision"][:, :, :, 0, -1])
            if ap is not None:
                drawn.append(ap)
        bounds = np.percentile(drawn, [_TAIL, 100 - _TAIL]).tolist() if drawn else None
        return figures | {"ap_interval": bounds}


def undecided_pixels(sample: Sample) -> NDArray[np.bool_] | None:
    """(H, W) bool: void and no crowd, so neither object nor background; None if there are none."""
    if sample.void is None:
        return None
    crowds = merge_rles([o.rle for o in sample.objects if o.ignore], sample.size)
    void = sample.void_mask() & ~decode_rle(crowds)
    return void if void.any() else None


def _without(
    rles: Sequence[RLE], void: NDArray[np.bool_] | None, size: tuple[int, int]
) -> list[RLE]:
    if void is None or not rles:
        return list(rles)
    return encode_masks(decode_rles(rles, size) & ~void)


def _known_mean(precision: NDArray[np.float64]) -> float | None:
    """Mean of COCO's array over everything that has an object."""
    known = precision[precision > -1]
    return float(known.mean()) if known.size else None
