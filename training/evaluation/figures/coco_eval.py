"""COCO's evaluation of masks, run by `faster-coco-eval`; what AP and AR commands share.

Sizes are COCO's: areas of the truth's masks in pixels of the stored photo, below 32^2 small, up to
96^2 medium, above large (cocodataset.org, "Detection Evaluation").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textsam.errors import require
from textsam.values.rle import RLE, rle_area, rle_box, rle_to_json

__all__ = ["SIZES", "Evaluation", "coco_row", "evaluate_masks"]

# (least, most) area, both inclusive, as COCO has it; "all" comes first for faster-coco-eval.
SIZES = {
    "all": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}


class Evaluation:
    """Every photo matched once; figures of all photos, or of any of them drawn again."""

    def __init__(self, run: Any) -> None:
        self._run = run
        self._shape = (len(run.params.catIds), len(run.params.areaRng), len(run.params.imgIds))
        self._photos = list(run._evalImgs_cpp)

    def arrays(self, drawn: Sequence[int] | None = None) -> dict[str, NDArray[np.float64]]:
        """COCO's arrays; -1 where a category has no object.

        Args:
            drawn: Places of the photos that count, by ascending id; one that is drawn twice counts
                twice. All photos once by default.

        Returns:
            "precision" (IoU, recall, category, size, limit), "recall" (IoU, category, size, limit).
        """
        run = self._run
        if drawn is None:
            run.accumulate()
            return {key: np.asarray(run.eval[key]) for key in ("precision", "recall")}
        categories, sizes, photos = self._shape
        table = np.arange(categories * sizes * photos).reshape(categories * sizes, photos)
        chosen = table[:, np.asarray(drawn)].ravel().tolist()
        kept, ids = run._evalImgs_cpp, run._paramsEval.imgIds
        try:
            run._evalImgs_cpp = [self._photos[place] for place in chosen]
            run._paramsEval.imgIds = list(range(len(drawn)))
            run.accumulate()
        finally:
            run._evalImgs_cpp, run._paramsEval.imgIds = kept, ids
        return {key: np.asarray(run.eval[key]) for key in ("precision", "recall")}


def evaluate_masks(
    photos: Sequence[Mapping[str, Any]],
    categories: Sequence[Mapping[str, Any]],
    *,
    objects: Sequence[Mapping[str, Any]],
    masks: Sequence[Mapping[str, Any]],
    sizes: Mapping[str, tuple[float, float]] = SIZES,
    limits: Sequence[int] = (100,),
) -> Evaluation:
    """Match masks with objects, photo by photo and category by category.

    Args:
        photos: COCO's images: `id`, `height`, `width`.
        categories: COCO's: `id`, `name`.
        objects: What there is: `coco_row` with `id` from 1, `image_id`, `category_id`, `iscrowd`.
        masks: What was found: the same with `score` in place of `iscrowd`.
        sizes: Ranges of areas by name, the widest first.
        limits: Most masks of a photo and category that count, ascending.

    Raises:
        MissingExtraError: faster-coco-eval is not installed.
    """
    library: Any = require("faster_coco_eval", "eval")
    shared = {"images": list(photos), "categories": list(categories)}
    truth = library.COCO(shared | {"annotations": list(objects)})
    found = library.COCO(shared | {"annotations": list(masks)})
    run = library.COCOeval_faster(truth, found, "segm", rle_iou_max_workers=1, separate_eval=True)
    run.params.areaRng = [list(bounds) for bounds in sizes.values()]
    run.params.areaRngLbl = list(sizes)
    run.params.maxDets = list(limits)
    run.evaluate()
    return Evaluation(run)


def coco_row(rle: RLE) -> dict[str, Any]:
    """Mask, area and box as COCO has them."""
    x0, y0, x1, y1 = rle_box(rle).tolist()
    return {
        "segmentation": rle_to_json(rle),
        "area": rle_area(rle),
        "bbox": [x0, y0, x1 - x0, y1 - y0],
    }
