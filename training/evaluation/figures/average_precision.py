"""AP and AR of scored masks, COCO's way (cocodataset.org, "Detection Evaluation").

Masks are ranked by score over all photos of a label, so a mask in a photo that lacks the thing
costs as much as a poor one where it is. AP is the mean over IoU .50:.05:.95 and over labels of the
precision at 101 recalls, of at most 100 masks of a label and photo; AR is the recall that those
masks reach. Void pixels are cut out of objects and masks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textsam.values.rle import RLE, decode_rle, decode_rles, encode_masks, merge_rles

from ...data import Sample
from .coco_eval import SIZES, CocoRows
from .intervals import percentiles
from .matching import Matches

_DRAWS = 200  # each gathers all photos anew; percentiles at 2.5 need no more


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
