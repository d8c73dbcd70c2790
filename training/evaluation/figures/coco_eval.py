"""COCO's evaluation of masks, run by `faster-coco-eval`; what AP and AR share.

Sizes are COCO's: areas of the true masks in pixels of the stored photo, below 32^2 small, up to
96^2 medium, above large (cocodataset.org, "Detection Evaluation").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textsam.errors import require
from textsam.values.rle import RLE, rle_area, rle_box, rle_to_json

# (lowest, highest) area, both inclusive, as in COCO; faster-coco-eval wants the widest first.
SIZES = {
    "all": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}


class CocoRows:
    """Photos, objects and masks in COCO's format.

    Args:
        labels: The categories.
    """

    def __init__(self, labels: Iterable[str]) -> None:
        self._library: Any = require("faster_coco_eval", "eval")
        self.categories = {label: index for index, label in enumerate(labels, start=1)}
        self.photos: dict[str, int] = {}
        self._images: list[dict[str, Any]] = []
        self._objects: list[dict[str, Any]] = []
        self._masks: list[dict[str, Any]] = []

    def add_photo(self, image_id: str, size: tuple[int, int]) -> None:
        """Add a photo, unless it is there."""
        if image_id not in self.photos:
            self.photos[image_id] = len(self.photos) + 1
            height, width = size
            row = {"id": self.photos[image_id], "file_name": image_id}
            self._images.append(row | {"height": height, "width": width})

    def add_object(self, image_id: str, label: str, rle: RLE, *, crowd: bool = False) -> None:
        """Add an object of a photo; an empty one is left out."""
        self._append(self._objects, image_id, label, rle, iscrowd=int(crowd))

    def add_mask(self, image_id: str, label: str, rle: RLE, score: float) -> None:
        """Add a mask of a photo with its score; NaN counts as 0; an empty one is left out."""
        self._append(self._masks, image_id, label, rle, score=float(np.nan_to_num(score)))

    def _append(
        self, rows: list[dict[str, Any]], image_id: str, label: str, rle: RLE, **more: Any
    ) -> None:
        if rle.is_empty:
            return
        x0, y0, x1, y1 = rle_box(rle).tolist()
        row = {
            "id": len(rows) + 1,
            "image_id": self.photos[image_id],
            "category_id": self.categories[label],
            "segmentation": rle_to_json(rle),
            "area": rle_area(rle),
            "bbox": [x0, y0, x1 - x0, y1 - y0],
        }
        rows.append(row | more)

    def evaluate(
        self,
        *,
        sizes: Mapping[str, tuple[float, float]] = SIZES,
        limits: Sequence[int] = (100,),
    ) -> Evaluation:
        """Match masks with objects, photo by photo and category by category."""
        categories = [{"id": index, "name": name} for name, index in self.categories.items()]
        shared = {"images": self._images, "categories": categories}
        run = self._library.COCOeval_faster(
            self._library.COCO(shared | {"annotations": self._objects}),
            self._library.COCO(shared | {"annotations": self._masks}),
            "segm",
            rle_iou_max_workers=1,
            separate_eval=True,  # keeps each photo's matches, which `Evaluation.arrays` draws from
        )
        run.params.areaRng = [list(bounds) for bounds in sizes.values()]
        run.params.areaRngLbl = list(sizes)
        run.params.maxDets = list(limits)
        run.evaluate()
        return Evaluation(run)


class Evaluation:
    """Every photo matched once; figures of all photos, or of any of them drawn again."""

    def __init__(self, run: Any) -> None:
        self._run = run
        self._shape = (len(run.params.catIds), len(run.params.areaRng), len(run.params.imgIds))
        self._photos = list(run._evalImgs_cpp)

    def arrays(self, drawn: Sequence[int] | None = None) -> dict[str, NDArray[np.float64]]:
        """COCO's arrays; -1 where a category has no object.

        Returns:
            "precision" (IoU, recall, category, size, limit), "recall" (IoU, category, size, limit).
        """
        run = self._run
        kept, ids = run._evalImgs_cpp, run._paramsEval.imgIds
        if drawn is not None:
            categories, sizes, photos = self._shape
            table = np.arange(categories * sizes * photos).reshape(categories * sizes, photos)
            chosen = table[:, np.asarray(drawn)].ravel().tolist()
            run._evalImgs_cpp = [self._photos[place] for place in chosen]
            run._paramsEval.imgIds = list(range(len(drawn)))
        try:
            run.accumulate()
        finally:
            run._evalImgs_cpp, run._paramsEval.imgIds = kept, ids
        return {key: np.asarray(run.eval[key]) for key in ("precision", "recall")}
