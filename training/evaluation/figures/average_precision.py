"""AP and AR of scored masks by COCO's evaluation, run by `faster-coco-eval`.

Masks are ranked by score over all photos of a label, so a mask in a photo that lacks the thing
costs as much as a poor one where it is. AP is the mean over IoU .50:.05:.95 and over labels of the
precision at 101 recalls, of at most 100 masks of a label and photo; AR is the recall that those
masks reach (cocodataset.org, "Detection Evaluation"). Void pixels are cut out of objects and masks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textsam.errors import require
from textsam.values.rle import (
    RLE,
    decode_rle,
    decode_rles,
    encode_masks,
    merge_rles,
    rle_area,
    rle_box,
    rle_to_json,
)

from ...data import Sample
from .intervals import percentiles
from .matching import Matches

# (lowest, highest) area of true masks in pixels of the stored photo, both inclusive, as in COCO;
# faster-coco-eval wants the widest first.
SIZES = {
    "all": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}
_DRAWS = 200  # each gathers all photos anew; percentiles at 2.5 need no more


class CocoRows:
    """Photos, objects and masks in COCO's format; labels are its categories."""

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
        self, *, sizes: Mapping[str, tuple[float, float]] = SIZES, limits: Sequence[int] = (100,)
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


class PhraseAP:
    """AP and AR of phrases over exhaustive photos.

    "Medium and large" is from 32^2 pixels of the stored photo up: smaller objects, and unmatched
    masks as small, count neither for nor against. Crowds are cut out like void, as in
    `match_masks`, where COCO would match masks with them.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self._rows = CocoRows(labels)

    def add(self, image_id: str, label: str, matches: Matches) -> None:
        """Add the masks and the objects of a phrase in a photo; no objects if it is absent."""
        self._rows.add_photo(image_id, matches.size)
        for rle in matches.truths:
            self._rows.add_object(image_id, label, rle)
        for rle, score, counted in zip(matches.rles, matches.scores, matches.counted, strict=True):
            if counted:
                self._rows.add_mask(image_id, label, rle, score)

    def figures(self) -> dict[str, Any]:
        """AP and AR.

        Returns:
            `ap50`, `ap`, `ar` over all sizes, `ap50_large`, `ap_large`, `ar_large` over medium and
            large objects, `phrases` and `phrases_large` (how many had such an object), and
            `labels` (`ap50_large` of each); None where there is no object.
        """
        # Medium and large together, from 32^2 pixels up.
        ranges = {"all": SIZES["all"], "large": (SIZES["medium"][0], SIZES["large"][1])}
        arrays = self._rows.evaluate(sizes=ranges).arrays()
        figures: dict[str, Any] = {}
        for index, suffix in enumerate(("", "_large")):
            # (IoU, recall, phrase) and (IoU, phrase); -1 where a phrase has no object.
            precision, recall = (arrays[key][..., index, -1] for key in ("precision", "recall"))
            filled = np.flatnonzero(recall[0] > -1)
            each = precision[0][:, filled].mean(axis=0)
            some = bool(len(filled))
            figures |= {
                f"ap50{suffix}": float(each.mean()) if some else None,
                f"ap{suffix}": float(precision[:, :, filled].mean()) if some else None,
                f"ar{suffix}": float(recall[:, filled].mean()) if some else None,
                f"phrases{suffix}": len(filled),
            }
        names = list(self._rows.categories)
        labels = {names[k]: float(ap) for k, ap in zip(filled, each, strict=True)}
        return figures | {"labels": labels}


class MaskAP:
    """AP of labelled masks, with its interval over photos; `ignore` objects are COCO's crowds."""

    def __init__(self, labels: Iterable[str]) -> None:
        self._rows = CocoRows(labels)

    def add(
        self, sample: Sample, rles: Sequence[RLE], *, labels: Sequence[str], scores: Sequence[float]
    ) -> None:
        """Add a photo, its objects and its masks."""
        self._rows.add_photo(sample.image_id, sample.size)
        void = undecided_pixels(sample)
        truths = _cut_out([o.rle for o in sample.objects], void, sample.size)
        for o, rle in zip(sample.objects, truths, strict=True):
            self._rows.add_object(sample.image_id, o.label, rle, crowd=o.ignore)
        masks = _cut_out(rles, void, sample.size)
        for rle, label, score in zip(masks, labels, scores, strict=True):
            if label in self._rows.categories:
                self._rows.add_mask(sample.image_id, label, rle, score)

    def figures(self, *, seed: int = 0) -> dict[str, Any]:
        """AP.

        Returns:
            `ap`, `ap50`, `ap75`, `ap_small`, `ap_medium`, `ap_large`, None where there is no such
            object, and `ap_interval` (low, high): 95%, over photos drawn again.
        """
        sizes = [f"ap_{size}" for size in list(SIZES)[1:]]
        count = len(self._rows.photos)
        if not count:
            return dict.fromkeys(("ap", "ap50", "ap75", *sizes, "ap_interval"))
        evaluation = self._rows.evaluate()
        precision = evaluation.arrays()["precision"][..., -1]
        figures: dict[str, Any] = {
            "ap": _known_mean(precision[..., 0]),
            "ap50": _known_mean(precision[0, ..., 0]),
            "ap75": _known_mean(precision[5, ..., 0]),  # IoU .50 + 5 * .05
        }
        for index, name in enumerate(sizes, start=1):
            figures[name] = _known_mean(precision[..., index])
        rng = np.random.default_rng(seed)
        draws = []
        for _ in range(_DRAWS):
            photos = rng.integers(count, size=count).tolist()
            ap = _known_mean(evaluation.arrays(photos)["precision"][:, :, :, 0, -1])
            if ap is not None:
                draws.append(ap)
        return figures | {"ap_interval": percentiles(draws) if draws else None}


def undecided_pixels(sample: Sample) -> NDArray[np.bool_] | None:
    """(H, W) bool: void and no crowd, so neither object nor background; None if there are none."""
    if sample.void is None:
        return None
    crowds = merge_rles([o.rle for o in sample.objects if o.ignore], sample.size)
    void = sample.void_mask() & ~decode_rle(crowds)
    return void if void.any() else None


def _cut_out(
    rles: Sequence[RLE], void: NDArray[np.bool_] | None, size: tuple[int, int]
) -> list[RLE]:
    """Masks without void pixels."""
    if void is None or not rles:
        return list(rles)
    return encode_masks(decode_rles(rles, size) & ~void)


def _known_mean(precision: NDArray[np.float64]) -> float | None:
    """Mean of COCO's array over everything that has an object."""
    known = precision[precision > -1]
    return float(known.mean()) if known.size else None
