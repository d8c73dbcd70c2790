"""Class-agnostic average recall of ranked masks, photo by photo.

AR@n is the recall of the n first masks of a photo, averaged over IoU .50:.05:.95 (cocodataset.org,
"Detection Evaluation"; arXiv 2304.02643, Section 7.3, uses n = 1000). Objects of all labels are
one category; crowds (`ignore`) are none of them. Recall is a share of objects, so photos add up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from textsam.values.rle import RLE, rle_areas

from ...data import Sample
from .coco_eval import SIZES, CocoRows
from .intervals import Interval, ratio_interval

LIMITS = (10, 100, 1000)


@dataclass(frozen=True, kw_only=True)
class PhotoRecall:
    """Recall of the masks of one photo."""

    image_id: str  # the photo
    masks: int  # number of masks
    objects: Mapping[str, int]  # number of objects of each size
    # `"all@10"` -> objects found, averaged over the IoU levels, for each size and limit.
    found: Mapping[str, float]


def photo_recall(
    sample: Sample, masks: Sequence[RLE], *, limits: Sequence[int] = LIMITS
) -> PhotoRecall:
    """Measure one photo."""
    truths = [o.rle for o in sample.objects if not o.ignore and not o.rle.is_empty]
    areas = rle_areas(truths) if truths else np.zeros(0, np.int64)
    counts = {
        name: int(((areas >= low) & (areas <= high)).sum()) for name, (low, high) in SIZES.items()
    }
    found = {f"{name}@{limit}": 0.0 for name in SIZES for limit in limits}
    kept = [rle for rle in masks[: max(limits)] if not rle.is_empty]
    if truths and kept:
        rows = CocoRows(["object"])
        rows.add_photo(sample.image_id, sample.size)
        for rle in truths:
            rows.add_object(sample.image_id, "object", rle)
        # COCO ranks by score; the scores only say the order here.
        for rank, rle in enumerate(kept, start=1):
            rows.add_mask(sample.image_id, "object", rle, len(kept) - rank)
        recall = rows.evaluate(limits=limits).arrays()["recall"][:, 0]
        for k, name in enumerate(SIZES):
            for n, limit in enumerate(limits):
                if counts[name]:
                    found[f"{name}@{limit}"] = float(recall[:, k, n].mean()) * counts[name]
    return PhotoRecall(image_id=sample.image_id, masks=len(masks), objects=counts, found=found)


def mean_recall(photos: Iterable[PhotoRecall], key: str, *, seed: int = 0) -> Interval | None:
    """AR over all objects of the photos, e.g. of `"small@100"`, with its 95% interval over photos.

    Returns:
        None where no photo has such an object.
    """
    size = key.partition("@")[0]
    rows = [(p.image_id, p.found[key], float(p.objects[size])) for p in photos]
    bounds = ratio_interval(rows, seed=seed)
    if bounds is None:
        return None
    objects = sum(row[2] for row in rows)
    return Interval(sum(row[1] for row in rows) / objects, *bounds, int(objects))


def recall_difference(
    photos: Sequence[PhotoRecall], reference: Sequence[PhotoRecall], key: str, *, seed: int = 0
) -> Interval | None:
    """AR of one method minus that of another on the same photos, drawn together."""
    if [p.image_id for p in photos] != [p.image_id for p in reference]:
        raise ValueError("a difference needs the same photos in the same order; these are others")
    differences = (
        PhotoRecall(
            image_id=p.image_id,
            masks=p.masks,
            objects=p.objects,
            found={key: p.found[key] - q.found[key]},
        )
        for p, q in zip(photos, reference, strict=True)
    )
    return mean_recall(differences, key, seed=seed)
