"""Masks beside their truth: IoU with void, and matching one to one with the objects of a phrase.

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

from textsam.errors import require
from textsam.values.rle import RLE, decode_rles, encode_masks, rle_areas, rle_iou

from .intervals import ratio_interval

Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class Matches:
    """The masks of a phrase, best score first, and the objects that they took."""

    size: tuple[int, int]  # (H, W) of the photo
    scores: NDArray[np.float64]  # (K,) float64
    truth: NDArray[np.int64]  # (K,) int64, the object that each mask took; -1 for none
    iou: NDArray[np.float64]  # (K,) float64 with that object; with the best object if it took none
    # (K,) bool; False if it lies mostly on ignored pixels and took nothing.
    counted: NDArray[np.bool_]
    right: NDArray[np.bool_]  # (K,) bool, more than half of its counted pixels belong to the phrase
    objects: int  # objects that could be found (not wholly ignored)
    rles: tuple[RLE, ...]  # K masks without ignored pixels
    truths: tuple[RLE, ...]  # the objects without ignored pixels
    touching: NDArray[np.bool_]  # (N,) bool, objects with another one at most 4 px away


@dataclass(frozen=True, kw_only=True)
class InstanceItem:
    """Masks of one phrase in one photo: `objects` there, `masks` painted, `matched` of both.

    `touching` of the objects have another one beside them, `touching_matched` of these are matched.
    `present` is False for a phrase that is not in the photo: every mask of it is wrong.
    """

    image_id: str
    label: str
    present: bool
    objects: int
    masks: int
    matched: int
    touching: int = 0
    touching_matched: int = 0


def masked_iou(prediction: Mask, truth: Mask, *, exclude: Mask | None = None) -> float:
    """Intersection over union of two (H, W) bool masks; `exclude` pixels count for neither.

    Two masks without a pixel are equal: 1. Callers leave out truths that are empty.
    """
    check_masks(prediction, truth, exclude)
    if exclude is not None:
        prediction, truth = prediction & ~exclude, truth & ~exclude
    union = int(np.count_nonzero(prediction | truth))
    return int(np.count_nonzero(prediction & truth)) / union if union else 1.0


def boundary_iou(prediction: Mask, truth: Mask, *, exclude: Mask | None = None) -> float:
    """IoU of the inner borders of two (H, W) masks (arXiv 2103.16562), 2% of the diagonal wide.

    Of large masks the plain IoU hardly sees the border, which is what makes one look ragged.
    """
    width = max(1, round(0.02 * float(np.hypot(*truth.shape))))
    erode = require("scipy.ndimage", "eval").binary_erosion
    # Outside the photo is background, as in the authors' code: its border is a border.
    borders = [
        mask & ~erode(mask, structure=np.ones((3, 3)), iterations=width)
        for mask in (prediction, truth)
    ]
    return masked_iou(*borders, exclude=exclude)


def check_masks(prediction: Mask, truth: Mask, exclude: Mask | None) -> None:
    """Raise a `ValueError` unless all masks are bool and of one size."""
    masks = [prediction, truth] if exclude is None else [prediction, truth, exclude]
    if any(mask.shape != truth.shape or mask.dtype != np.bool_ for mask in masks):
        got = ", ".join(f"{mask.dtype} {mask.shape}" for mask in masks)
        raise ValueError(f"got masks {got}; wanted bool (H, W), all of one size")


def match_masks(
    rles: Sequence[RLE],
    scores: NDArray[np.float64],
    truths: Sequence[RLE],
    *,
    ignored: Mask,
    level: float = 0.5,
) -> Matches:
    """Match K masks, best score first, with objects one to one, from IoU `level` up.

    `ignored` is (H, W) bool, pixels without a truth.
    """
    size = (ignored.shape[0], ignored.shape[1])
    masks = decode_rles(rles, size) & ~ignored
    objects = decode_rles(truths, size) & ~ignored
    # An object that is wholly ignored can be neither found nor missed.
    objects = objects[objects.any(axis=(1, 2))]
    mask_rles, object_rles = encode_masks(masks), encode_masks(objects)
    overlap = np.zeros((len(mask_rles), len(object_rles)))
    if mask_rles and object_rles:
        overlap = rle_iou(mask_rles, object_rles)
    taken = take_objects(overlap, level=level)
    areas = rle_areas(mask_rles)
    inside = (masks & objects.any(axis=0)).sum(axis=(1, 2))
    best = overlap.max(axis=1, initial=0.0)
    return Matches(
        size=size,
        scores=scores,
        truth=taken,
        iou=np.array([overlap[k, t] if t >= 0 else best[k] for k, t in enumerate(taken)]),
        # Twice the counted area at least the whole one: not mostly on ignored pixels.
        counted=(taken >= 0) | (2 * areas >= rle_areas(rles)),
        right=2 * inside > areas,
        objects=len(objects),
        rles=tuple(mask_rles),
        truths=tuple(object_rles),
        touching=find_touching(objects),
    )


def find_touching(masks: NDArray[np.bool_], *, reach: int = 2) -> NDArray[np.bool_]:
    """(N,) bool: which of N masks (N, H, W) have another one at most twice `reach` pixels away."""
    if len(masks) < 2:
        return np.zeros(len(masks), dtype=bool)
    dilate = require("scipy.ndimage", "eval").binary_dilation
    wide = np.stack([dilate(mask, iterations=reach) for mask in masks])
    shared = wide.sum(axis=0) > 1
    return np.asarray((wide & shared).any(axis=(1, 2)))


def take_objects(overlap: NDArray[np.float64], *, level: float) -> NDArray[np.int64]:
    """Index of the object that each mask takes, in the order of the rows; -1 for none.

    Rows further down change nothing for those above, so one run serves every level of the score.
    """
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
        touching=int(matches.touching.sum()),
        touching_matched=int(matches.touching[matches.truth[matches.truth >= 0]].sum()),
    )


def instance_means(items: Iterable[InstanceItem], *, seed: int = 0) -> dict[str, Any]:
    """Recall and precision over all objects and masks, with intervals over photos.

    Returns:
        `objects`, `masks`, `recall`, `precision`, `f1` over phrases that are there;
        `touching` objects and their `touching_recall`; `precision_all` where the masks of absent
        phrases count as well; `recall_interval` and `precision_interval` (low, high). None where
        nothing was measured.
    """
    rows = list(items)
    here = [item for item in rows if item.present]
    objects, masks = sum(i.objects for i in here), sum(i.masks for i in here)
    matched = sum(i.matched for i in here)
    every = sum(i.masks for i in rows)
    touching = sum(i.touching for i in here)
    recalls = [(i.image_id, i.matched, i.objects) for i in here]
    precisions = [(i.image_id, i.matched, i.masks) for i in here]
    return {
        "objects": objects,
        "masks": masks,
        "recall": matched / objects if objects else None,
        "touching": touching,
        "touching_recall": sum(i.touching_matched for i in here) / touching if touching else None,
        "precision": matched / masks if masks else None,
        "f1": 2 * matched / (objects + masks) if objects + masks else None,
        "precision_all": matched / every if every else None,
        "recall_interval": ratio_interval(recalls, seed=seed),
        "precision_interval": ratio_interval(precisions, seed=seed),
    }
