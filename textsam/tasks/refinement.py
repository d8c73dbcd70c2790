"""Refinement: rough masks in, better masks out, also for label files of other projects.

    from textsam import TextSAM
    from textsam.tasks.refinement import refine

    better = refine(TextSAM.from_pretrained("tiny"), rough, image="street.jpg")

Each mask is a prompt, together with its box and a point in its middle: the decoder was trained on
masks that come with other prompts (arXiv 2304.02643, Appendix A, "Training algorithm"). There is
one pass only, since a second one moves away from the original mask.

Use it for masks that are grown, shrunk, blocky or a filled box. Masks that are right to the pixel
get worse, and so do masks with a missing part; for these, `box=False` does the least harm.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from textsam.errors import PromptError
from textsam.inference.model import TextSAM
from textsam.inference.photo.prediction import depth_inside, stability_score
from textsam.inference.view import ImageView
from textsam.results.coco_rows import (
    BadRowError,
    RowProblems,
    annotation_mask,
    plain_id,
    read_coco_file,
)
from textsam.results.segmentation import Segmentation
from textsam.tasks.inputs import open_photo, read_images, segment_photos
from textsam.values.files import write_atomically
from textsam.values.geometry import as_array, boxes_to_xywh, mask_to_box
from textsam.values.images import ImageSource
from textsam.values.prompts import ArrayLike
from textsam.values.rle import (
    RLE,
    decode_rle,
    encode_masks,
    merge_rles,
    rle_area,
    rle_box,
    rle_iou,
    rle_to_json,
)

__all__ = ["refine", "refine_coco"]

logger = logging.getLogger(__name__)

# A prediction that overlaps less with the rough mask (IoU) is a mask of something else.
_MIN_IOU = 0.3
# The middle of a mask is searched on a grid of this many steps along its longer side.
_GRID_STEPS = 64


def refine(
    model: TextSAM | ImageView,
    masks: Segmentation | ArrayLike,
    *,
    image: ImageSource | None = None,
    box: bool = True,
    point: bool = True,
) -> Segmentation:
    """Segment objects again, starting from rough masks.

    Args:
        model: A model, with `image`; or a photo that is open already, `model.open(image)`.
        masks: A `Segmentation`, or (K, H, W) or (H, W) bool.
        image: Anything that `textsam.load_image` takes.
        box: Whether the box of the mask is a prompt too; not useful if a part of the object is
            missing.
        point: Whether a point in the middle of the mask is a prompt too.

    Returns:
        The new masks in the same order, with the same labels and scores, and with predicted IoU and
        stability. An empty mask, and one whose prediction is something else (IoU below 0.3 with
        it), stays as it was, with NaN for both.

    Raises:
        PromptError: The masks have another size or dtype; the image is missing, or one was given
            with an open photo.
        ImageError: The image cannot be read.
    """
    view = open_photo(model, image)
    rough = _as_segmentation(masks, view.size)
    rles: list[RLE] = []
    iou = np.full(len(rough), np.nan, np.float32)
    stability = np.full(len(rough), np.nan, np.float32)
    for index, rle in enumerate(rough.rles):
        refined = _refine_mask(view, rle, box=box, point=point)
        if refined is not None:
            rle, iou[index], stability[index] = refined
        rles.append(rle)
    return Segmentation(
        view.size,
        rles,
        scores=rough.scores,
        iou=iou,
        stability=stability,
        labels=rough.labels,
        image=view.photo.origin,
    )


def refine_coco(
    model: TextSAM,
    annotations: str | Path,
    *,
    photos: str | Path,
    out: str | Path,
    box: bool = True,
    point: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Refine the masks of a COCO file; everything else in it stays.

    Args:
        model: The model.
        annotations: A COCO file with `images`, and with `annotations` whose `segmentation` is
            polygons or RLE.
        photos: The folder to which the `file_name` of an image is relative.
        out: The file to write, complete or not at all. Masks are written as compressed RLE, with
            their new `bbox` and `area`. Crowds, and rows that cannot be read, stay.
        box: As `refine`.
        point: As `refine`.
        progress: Called with (photos done, number of photos) after each photo.

    Returns:
        Number of masks that were refined.

    Raises:
        ValueError: The file is not COCO's, or masks are not for their photo.
        OSError: A file or photo cannot be read or written.
    """
    payload = read_coco_file(Path(annotations))
    images = read_images(payload["images"], where=f'{annotations}, "images"')
    problems = RowProblems()
    rows = _rough_rows(payload["annotations"], images, problems)
    if problems and not rows:
        raise ValueError(f"{annotations}: no row has a mask and a photo: {problems}")

    def rough(view: ImageView, group: list[Any]) -> Segmentation:
        return Segmentation(view.size, [_readable(row, view.size, problems) for row in group])

    pairs = segment_photos(
        model,
        rows,
        lambda view, group: refine(view, rough(view, group), box=box, point=point),
        images=images,
        photos=photos,
        progress=progress,
    )
    count = 0
    for row, mask in pairs:
        if np.isnan(mask.iou):  # unchanged, so the file keeps its polygons
            continue
        count += 1
        row["segmentation"] = rle_to_json(mask.rle)
        row["bbox"] = [float(side) for side in boxes_to_xywh(rle_box(mask.rle))]
        row["area"] = rle_area(mask.rle)
    write_atomically(out, json.dumps(payload).encode())
    if problems:
        logger.warning("%s: %s", annotations, problems)
    return count


def _rough_rows(
    annotations: list[Any], images: Mapping[Hashable, Any], problems: RowProblems
) -> list[dict[str, Any]]:
    """The rows with a mask that is no crowd, of photos that are listed."""
    rows = []
    for index, row in enumerate(annotations):
        if not isinstance(row, dict) or plain_id(row.get("image_id")) not in images:
            problems.add("a photo that is not listed, left as it is", f"annotation {index}")
        elif row.get("segmentation") and not row.get("iscrowd"):
            rows.append(row)
    return rows


def _readable(row: Mapping[str, Any], size: tuple[int, int], problems: RowProblems) -> RLE:
    """The mask of a row; an empty one, which stays as it is, if it cannot be read."""
    try:
        rle = annotation_mask(row, size)
    except BadRowError as error:
        problems.add(f"{error.kind}, left as it is", f"annotation {row.get('id')!a}: {error}")
        rle = None
    return merge_rles([], size) if rle is None else rle


def _refine_mask(
    view: ImageView, rle: RLE, *, box: bool, point: bool
) -> tuple[RLE, float, float] | None:
    """The decoder's mask, predicted IoU and stability; None to keep the old mask."""
    mask = decode_rle(rle)
    if not mask.any():
        return None
    prediction = view.predict(
        mask=mask,
        box=mask_to_box(mask).astype(np.float32) if box else None,
        points=[_middle(mask)] if point else None,
    )
    logits = torch.from_numpy(prediction.masks[0].full_size())[None]
    refined = encode_masks((logits > 0).numpy())[0]
    if float(rle_iou([refined], [rle])[0, 0]) < _MIN_IOU:
        return None
    return refined, float(prediction.iou[0]), float(stability_score(logits)[0])


def _middle(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """x, y of the centre of a pixel that is far from the mask's border, on a coarse grid."""
    x0, y0, x1, y1 = mask_to_box(mask).tolist()
    step = max(1, -(-max(x1 - x0, y1 - y0) // _GRID_STEPS))
    coarse = mask[y0:y1:step, x0:x1:step]
    if not coarse.any():  # the mask is thinner than a step
        row, column = np.argwhere(mask)[0]
        return float(column) + 0.5, float(row) + 0.5
    depth = depth_inside(torch.from_numpy(np.ascontiguousarray(coarse)))
    row, column = divmod(int(depth.argmax()), depth.shape[1])
    return x0 + column * step + 0.5, y0 + row * step + 0.5


def _as_segmentation(masks: Segmentation | ArrayLike, size: tuple[int, int]) -> Segmentation:
    if isinstance(masks, Segmentation):
        if masks.size != size:
            raise PromptError(f"masks are for a photo of {masks.size} (H, W); this one is {size}")
        return masks
    array = as_array(masks)
    if array.dtype != np.bool_ or array.ndim not in (2, 3) or array.shape[-2:] != size:
        raise PromptError(
            f"masks are {array.dtype} of shape {array.shape}; wanted bool (K, {size[0]}, "
            f"{size[1]}), (H, W) of one, or a Segmentation"
        )
    return Segmentation(size, encode_masks(array.reshape(-1, *size)))
