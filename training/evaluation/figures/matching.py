"""Instances of a phrase: masks matched one to one with the objects, recall and precision.

As in COCO's evaluation: by falling score each mask takes the object that it overlaps most among
those not yet taken, from IoU .5. Pixels without a truth count for neither side, and a mask that
lies mostly on them and matches nothing is neither right nor wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textsam.values.rle import RLE, decode_rles, encode_masks, rle_areas, rle_iou

from ..phrases.asking import Found
from .bootstrap import ratio_interval

__all__ = [
    "InstanceItem",
    "Matches",
    "instance_item",
    "instance_means",
    "match_masks",
    "take_objects",
]

Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class Matches:
    """What became of each mask of a phrase, best score first.

    Attributes:
        size: (H, W) of the photo.
        scores: (K,) float64.
        truth: (K,) int64, the object that it took; -1 for none.
        iou: (K,) float64 with that object; with the best object if it took none.
        counted: (K,) bool; False if it lies mostly on ignored pixels and took nothing.
        right: (K,) bool, more than half of its counted pixels belong to the phrase.
        objects: Objects that could be found (not wholly ignored).
        rles: K masks without ignored pixels.
        truths: The objects without ignored pixels.
    """

    size: tuple[int, int]
    scores: NDArray[np.float64]
    truth: NDArray[np.int64]
    iou: NDArray[np.float64]
    counted: NDArray[np.bool_]
    right: NDArray[np.bool_]
    objects: int
    rles: tuple[RLE, ...]
    truths: tuple[RLE, ...]


@dataclass(frozen=True, kw_only=True)
class InstanceItem:
    """Masks of one phrase in one photo: `objects` there, `masks` painted, `matched` of both.

    `present` is False for a phrase that is not in the photo: every mask of it is wrong.
    """

    image_id: str
    label: str
    present: bool
    objects: int
    masks: int
    matched: int


def match_masks(
    found: Found, truths: Sequence[RLE], *, ignored: Mask, level: float = 0.5
) -> Matches:
    """Match masks with objects one to one.

    Args:
        found: K masks, best score first.
        truths: The objects of the phrase; none if it is absent.
        ignored: (H, W) bool, pixels without a truth.
        level: Least IoU of a match.
    """
    size = found.size
    masks = decode_rles(found.rles, size)
    counted_masks = masks & ~ignored
    objects = decode_rles(truths, size) & ~ignored
    objects = objects[objects.any(axis=(1, 2))]
    rles, object_rles = encode_masks(counted_masks), encode_masks(objects)
    overlap = np.zeros((len(rles), len(object_rles)))
    if rles and object_rles:
        overlap = rle_iou(rles, object_rles)
    taken = take_objects(overlap, level=level)
    areas = rle_areas(rles)
    union = objects.any(axis=0)
    inside = (counted_masks & union).sum(axis=(1, 2))
    best = overlap.max(axis=1, initial=0.0)
    return Matches(
        size=size,
        scores=found.scores,
        truth=taken,
        iou=np.array([overlap[k, t] if t >= 0 else best[k] for k, t in enumerate(taken)]),
        counted=(taken >= 0) | (2 * areas >= rle_areas(found.rles)),
        right=2 * inside > areas,
        objects=len(objects),
        rles=tuple(rles),
        truths=tuple(object_rles),
    )


def take_objects(overlap: NDArray[np.float64], *, level: float) -> NDArray[np.int64]:
    """Index of the object that each mask takes, in the order of the rows; -1 for none."""
    taken = np.full(len(overlap), -1, dtype=np.int64)
    free = overlap.copy()
    for row in range(len(overlap)):
        if free.shape[1] and free[row].max() >= level:
            taken[row] = int(free[row].argmax())
            free[:, taken[row]] = -1.0
    return taken


def instance_item(image_id: str, label: str, matches: Matches, *, present: bool) -> InstanceItem:
    """The counts of one phrase."""
    return InstanceItem(
        image_id=image_id,
        label=label,
        present=present,
        objects=matches.objects,
        masks=int(matches.counted.sum()),
        matched=int((matches.truth >= 0).sum()),
    )


def instance_means(items: Iterable[InstanceItem], *, seed: int = 0) -> dict[str, Any]:
    """Recall and precision over all objects and masks, with intervals over photos.

    Returns:
        `objects`, `masks`, `recall`, `precision`, `f1` over phrases that are there; `precision_all`
        where the masks of absent phrases count as well; `recall_interval` and `precision_interval`
        (low, high). None where nothing was measured.
    """
    rows = list(items)
    here = [item for item in rows if item.present]
    objects, masks = sum(i.objects for i in here), sum(i.masks for i in here)
    matched = sum(i.matched for i in here)
    every = sum(i.masks for i in rows)
    recall = matched / objects if objects else None
    precision = matched / masks if masks else None
    return {
        "objects": objects,
        "masks": masks,
        "recall": recall,
        "precision": precision,
        "f1": 2 * matched / (objects + masks) if objects + masks else None,
        "precision_all": matched / every if every else None,
        "recall_interval": ratio_interval(
            [(i.image_id, i.matched, i.objects) for i in here], seed=seed
        ),
        "precision_interval": ratio_interval(
            [(i.image_id, i.matched, i.masks) for i in here], seed=seed
        ),
    }
