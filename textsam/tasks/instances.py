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

from textsam.inference.model import TextSAM
from textsam.inference.photo.many_objects import masks_of_prompts
from textsam.inference.view import ImageView
from textsam.results.segmentation import Segmentation
from textsam.tasks.detections import read_boxes
from textsam.tasks.inputs import Row, open_photo, read_images, read_results, segment_photos
from textsam.values.files import open_atomically
from textsam.values.images import ImageSource
from textsam.values.prompts import ArrayLike, Prompt
from textsam.values.rle import rle_to_json
from textsam.values.settings import FocusSettings

__all__ = ["instances", "refine_results"]


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
    found = masks_of_prompts(photo, [Prompt(box=box) for box in detected.boxes], refine=refine)
    return Segmentation(
        view.size,
        found.rles,
        scores=detected.scores,
        iou=found.iou,
        stability=found.stability,
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
