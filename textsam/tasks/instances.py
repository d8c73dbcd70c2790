"""Instances: a mask for every box that a detector found.

    from textsam import TextSAM
    from textsam.tasks.instances import instances

    masks = instances(TextSAM.from_pretrained("tiny"), boxes, image="street.jpg", labels=names)

arXiv 2304.02643, Section 7.4 and Appendix D.4: each box is a prompt; a second pass refines the
first mask, with the box and the logits of that mask as prompts.

If the model zooms (`TextSAM.focus`), small boxes are prompted again on a window around them, which
costs one encoding per box. With `focus=False` all boxes are prompted on the whole photo.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textsam.inference.model import TextSAM
from textsam.inference.photo.encoded import EncodedPhoto, to_original_frame
from textsam.inference.photo.prediction import box_prompts, decode, stability_score
from textsam.inference.photo.zoom import WindowCache, predict
from textsam.inference.view import ImageView
from textsam.results.segmentation import Segmentation
from textsam.tasks.detections import read_boxes
from textsam.tasks.inputs import Row, open_photo, read_images, read_results, segment_photos
from textsam.values.files import open_atomically
from textsam.values.images import ImageSource
from textsam.values.prompts import ArrayLike, Prompt
from textsam.values.rle import RLE, encode_masks, rle_to_json
from textsam.values.settings import FocusSettings

__all__ = ["instances", "refine_results"]

# Boxes decoded at once. Full-size logits of a group are in memory together, and on a CPU small
# groups are also faster than large ones.
_GROUP = 8


def instances(
    model: TextSAM | ImageView,
    boxes: Any,
    *,
    image: ImageSource | None = None,
    labels: Sequence[str | None] | None = None,
    scores: ArrayLike | None = None,
    categories: Mapping[int, str] | None = None,
    refine: bool = True,
    focus: bool | None = None,
) -> Segmentation:
    """Turn a detector's boxes into masks.

    Args:
        model: A model, with `image`; or a photo that is open already, `model.open(image)`.
        boxes: (N, 4) half-open x0, y0, x1, y1 in original pixels, as array, list or tensor; COCO
            results of the photo; or `supervision.Detections`.
        image: Anything that `textsam.load_image` takes.
        labels: N names, with an array; the other forms have their own.
        scores: N scores of the detector, with an array.
        categories: Names by category id or class id, if the boxes have none.
        refine: Whether to make the second pass.
        focus: Whether to zoom in on small boxes. By default as the photo was opened; True zooms
            even if the model has no settings for it, with the defaults of `FocusSettings`.

    Returns:
        N masks in the order of the boxes. Empty masks stay, so that masks and boxes correspond
        (`filter(min_area=1)` drops them). `labels` and `scores` are the detector's, None and NaN
        where it gave none; `iou` (predicted) and `stability` are the decoder's.

    Raises:
        PromptError: The boxes are not valid (see `textsam.tasks.detections.read_boxes`), or the
            image is missing, or one was given with an open photo.
        ImageError: The image cannot be read.
    """
    view = open_photo(model, image)
    detected = read_boxes(boxes, view.size, labels=labels, scores=scores, categories=categories)
    photo = view.photo
    if focus is not None:
        settings = (photo.parts.focus or FocusSettings()) if focus else None
        photo = replace(photo, parts=replace(photo.parts, focus=settings))
    rles, iou, stability = _masks_of_boxes(
        photo, detected.boxes, windows=view.windows, refine=refine
    )
    return Segmentation(
        view.size,
        rles,
        scores=detected.scores,
        iou=iou,
        stability=stability,
        labels=detected.labels,
        image=view.photo.origin,
    )


def refine_results(
    model: TextSAM,
    results: str | Path | Sequence[Row],
    *,
    photos: str | Path,
    images: str | Path | Sequence[Row],
    out: str | Path,
    refine: bool = True,
    focus: bool | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Add a mask to every detection of a COCO results file; one photo is in memory at a time.

    Each row is written as it came and with `segmentation` (compressed RLE), `predicted_iou` and
    `stability_score`. Rows are grouped by photo, in the order of the photos' first rows.

    Args:
        model: The model.
        results: The detector's file, or its rows: `image_id`, `category_id`, `bbox` (x, y, width,
            height), `score`.
        photos: The folder to which the `file_name` of an image is relative.
        images: A COCO file with `images` (annotations or image info), or that list: `id`,
            `file_name`, and optionally `height` and `width`, which are then checked.
        out: The file to write, complete or not at all.
        refine: As `instances`.
        focus: As `instances`.
        progress: Called with (photos done, number of photos) after each photo.

    Returns:
        Number of rows written, one per detection.

    Raises:
        ValueError: The results are not valid, an `image_id` has no image, or a box is not valid;
            the message names photo and box.
        OSError: A file cannot be read or written.
    """
    pairs = segment_photos(
        model,
        read_results(results),
        lambda view, group: instances(view, group, refine=refine, focus=focus),
        images=read_images(images),
        photos=photos,
        progress=progress,
    )
    count = 0
    with open_atomically(out) as file:
        file.write(b"[")
        for count, (row, mask) in enumerate(pairs, start=1):
            values = {
                **row,
                "segmentation": rle_to_json(mask.rle),
                "predicted_iou": mask.iou,
                "stability_score": mask.stability,
            }
            file.write(b"\n" if count == 1 else b",\n")
            file.write(json.dumps(values).encode())
        file.write(b"\n]\n")
    return count


def _masks_of_boxes(
    photo: EncodedPhoto, boxes: NDArray[np.float32], *, windows: WindowCache, refine: bool
) -> tuple[list[RLE], list[float], list[float]]:
    """Masks, predicted IoU and stability of N boxes, in their order."""
    rles: list[RLE] = []
    iou: list[float] = []
    stability: list[float] = []
    for start in range(0, len(boxes), _GROUP):
        group = boxes[start : start + _GROUP]
        if photo.parts.focus is None:
            logits, predicted = _decode_on_photo(photo, group, refine=refine)
        else:
            logits, predicted = _decode_on_windows(photo, group, windows=windows, refine=refine)
        rles += encode_masks((logits > 0).numpy())
        iou += predicted.tolist()
        stability += stability_score(logits).tolist()
    return rles, iou, stability


def _decode_on_photo(
    photo: EncodedPhoto, boxes: NDArray[np.float32], *, refine: bool
) -> tuple[Tensor, Tensor]:
    """Logits (P, H, W) and predicted IoU (P,) of boxes on the whole photo, decoded at once."""
    # Of the decoder's four masks, the first is for unambiguous prompts, such as boxes.
    low_res, iou = (values[:, :1] for values in decode(photo, box_prompts(photo, boxes)))
    if refine:
        prompts = box_prompts(photo, boxes, low_res=low_res)
        low_res, iou = (values[:, :1] for values in decode(photo, prompts))
    return to_original_frame(low_res[:, 0], photo.frame), iou[:, 0]


def _decode_on_windows(
    photo: EncodedPhoto, boxes: NDArray[np.float32], *, windows: WindowCache, refine: bool
) -> tuple[Tensor, Tensor]:
    """The same, with a window of its own for each box that is small enough."""
    predictions = [predict(photo, Prompt(box=box), windows=windows, refine=refine) for box in boxes]
    logits = np.stack([prediction.masks[0].full_size() for prediction in predictions])
    iou = [float(prediction.iou[0]) for prediction in predictions]
    return torch.from_numpy(logits), torch.tensor(iou)
