"""Instances: a mask for every box that a detector found (RECIPE 8, "instances from boxes").

    from textsam import TextSAM
    from textsam.tasks.instances import instances

    found = instances(TextSAM.from_pretrained("tiny"), boxes, image="street.jpg", labels=names)

arXiv 2304.02643, Section 7.4 and Appendix D.4: each box is a prompt, and one pass more refines the
first answer, with the box and the first mask's logits as prompts.

Small boxes are asked again on a window around them, if the model looks closer (`TextSAM.focus`);
that encodes a window a box. `focus=False` asks all boxes on the whole photo, in small groups.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textsam.errors import ImageError, PromptError
from textsam.inference.model import TextSAM
from textsam.inference.photo.postprocess import stability_score, to_original_frame
from textsam.inference.photo.prompt_batch import box_prompts
from textsam.inference.photo.windows import FocusSettings
from textsam.inference.photo.zoom import predict_closer
from textsam.inference.view import ImageView
from textsam.results.segmentation import Segmentation
from textsam.tasks.detections import check_rows, group_by_photo, read_boxes, read_results
from textsam.tasks.opening import opened
from textsam.values.files import open_atomically
from textsam.values.images import ImageSource
from textsam.values.prompts import ArrayLike, Prompt
from textsam.values.rle import RLE, encode_masks, rle_to_json

__all__ = ["instances", "refine_results", "refined_rows"]

# Boxes decoded at once: on a CPU small groups beat large ones, and full-size logits of this many
# masks are held at a time.
_GROUP = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class _Masks:
    """Masks of boxes, in their order, and what the decoder says of each."""

    rles: list[RLE]
    iou: NDArray[np.float32]
    stability: NDArray[np.float32]


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
            results of the photo; or `supervision.Detections`. See `textsam.tasks.detections`.
        image: Whatever `textsam.load_image` takes.
        labels: N names, with an array; the other forms bring their own.
        scores: N scores of the detector, with an array.
        categories: Name of each category id or class id, where the boxes bring none.
        refine: Whether the second pass is made.
        focus: Whether boxes are looked at closely. By default as the photo was opened: as the
            model's settings say. True asks for it also where the model has no settings, by the
            defaults of `FocusSettings`.

    Returns:
        N masks, the i-th of the i-th box: also an empty one stays, so that masks and boxes
        correspond (`filter(min_area=1)` drops it). `labels` and `scores` are the detector's, NaN
        and None where it gave none; `iou` (predicted) and `stability` are the decoder's own.

    Raises:
        PromptError: Boxes that cannot be meant: see `textsam.tasks.detections.read_boxes`; or an
            image missing or too many.
        ImageError: If it is no image.
    """
    view = opened(model, image)
    given = read_boxes(boxes, view.size, labels=labels, scores=scores, categories=categories)
    masks = _masks(view, given.boxes, refine=refine, settings=_focus_settings(view, focus))
    return Segmentation(
        view.size,
        masks.rles,
        scores=given.scores,
        iou=masks.iou,
        stability=masks.stability,
        labels=given.labels,
        image=view.image,
    )


def refine_results(
    model: TextSAM,
    results: str | Path | Sequence[Mapping[str, Any]],
    *,
    photos: str | Path,
    images: str | Path | Sequence[Mapping[str, Any]],
    out: str | Path,
    refine: bool = True,
    focus: bool | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Give every detection of a COCO results file a mask, and write them as COCO results.

    Args:
        model: The model.
        results: The detector's file, or its rows: `image_id`, `category_id`, `bbox` (x, y, width,
            height), `score`.
        photos: The folder that the `file_name` of an image starts from.
        images: A COCO file with `images` (annotations or image info), or that list: `id`,
            `file_name`, and `height` and `width`, if they are to be checked.
        out: The file to write; complete or not there at all.
        refine: As `instances`.
        focus: As `instances`.
        progress: Called with (photos done, photos in all) after each photo.

    Returns:
        Number of rows written: one for each that came, grouped by photo, as `refined_rows` says.

    Raises:
        ValueError: No results, an `image_id` without an image, or a box that cannot be meant; the
            message names photo and box.
        OSError: A file cannot be read or written.
    """
    rows = refined_rows(
        model,
        results,
        photos=photos,
        images=images,
        refine=refine,
        focus=focus,
        progress=progress,
    )
    count = 0
    with open_atomically(out) as file:
        file.write(b"[")
        for row in rows:
            file.write(b",\n" if count else b"\n")
            file.write(json.dumps(row).encode())
            count += 1
        file.write(b"\n]\n")
    return count


def refined_rows(
    model: TextSAM,
    results: str | Path | Sequence[Mapping[str, Any]],
    *,
    photos: str | Path,
    images: str | Path | Sequence[Mapping[str, Any]],
    refine: bool = True,
    focus: bool | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[dict[str, Any]]:
    """The rows that `refine_results` writes, one photo in memory at a time.

    Yields:
        Each row as it came, its score and box included, and with `segmentation` (compressed RLE),
        `predicted_iou` and `stability_score`. Photos in the order in which they first come in the
        results, rows of a photo in their order.

    Raises:
        ValueError: As `refine_results`.
        OSError: A photo cannot be read.
    """
    if isinstance(results, str | Path):
        rows: Sequence[Mapping[str, Any]] = read_results(results)
    else:
        check_rows(results, where="results")
        rows = results
    groups = group_by_photo(rows)
    known = _known_images(images)
    unknown = [number for number in groups if number not in known]
    if unknown:
        raise ValueError(
            f"{len(unknown)} of {len(groups)} image ids of the results are not among the "
            f"{len(known)} images, e.g. {unknown[0]!r}; give the images of the same set"
        )
    for done, (number, group) in enumerate(groups.items(), start=1):
        path = Path(photos) / known[number]["file_name"]
        try:
            with model.open(path) as view:
                _check_size(view.size, known[number])
                found = instances(view, group, refine=refine, focus=focus)
        except (ImageError, PromptError) as error:
            raise type(error)(f"photo {number!r} ({path}): {error}") from error
        for row, item in zip(group, found, strict=True):
            yield {
                **row,
                "segmentation": rle_to_json(item.rle),
                "predicted_iou": item.iou,
                "stability_score": item.stability,
            }
        if progress is not None:
            progress(done, len(groups))


def _masks(
    view: ImageView,
    boxes: NDArray[np.float32],
    *,
    refine: bool,
    settings: FocusSettings | None,
) -> _Masks:
    rles: list[RLE] = []
    iou: list[float] = []
    stability: list[float] = []
    for start in range(0, len(boxes), _GROUP):
        group = boxes[start : start + _GROUP]
        if settings is None:
            logits, quality = _together(view, group, refine=refine)
        else:
            logits, quality = _closely(view, group, refine=refine, settings=settings)
        rles += encode_masks((logits > 0).numpy())
        iou += quality.tolist()
        stability += stability_score(logits).tolist()
    return _Masks(
        rles=rles, iou=np.array(iou, np.float32), stability=np.array(stability, np.float32)
    )


def _together(
    view: ImageView, boxes: NDArray[np.float32], *, refine: bool
) -> tuple[Tensor, Tensor]:
    """Logits (P, H, W) and predicted IoU (P,) of boxes asked at once on the whole photo."""
    low_res, iou = (values[:, :1] for values in view.decode(box_prompts(view, boxes)))
    if refine:
        again = view.decode(box_prompts(view, boxes, low_res=low_res))
        low_res, iou = (values[:, :1] for values in again)
    return to_original_frame(low_res[:, 0], view.frame), iou[:, 0]


def _closely(
    view: ImageView, boxes: NDArray[np.float32], *, refine: bool, settings: FocusSettings
) -> tuple[Tensor, Tensor]:
    """The same with a window for each box that is small enough."""
    answers = [
        predict_closer(
            view, Prompt(box=box), settings=settings, previous=None, reading=0, refine=refine
        )
        for box in boxes
    ]
    logits = torch.from_numpy(np.stack([answer.logits[0] for answer in answers]))
    return logits, torch.tensor([float(answer.iou[0]) for answer in answers])


def _focus_settings(view: ImageView, focus: bool | None) -> FocusSettings | None:
    if focus is None:
        return view.focus
    return (view.focus or view.model.focus or FocusSettings()) if focus else None


def _known_images(
    images: str | Path | Sequence[Mapping[str, Any]],
) -> dict[Hashable, Mapping[str, Any]]:
    """COCO's images by id."""
    where = "images"
    rows: Any = images
    if isinstance(images, str | Path):
        where = str(images)
        try:
            rows = json.loads(Path(images).read_bytes())
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{where} is no JSON: {error}") from error
        rows = rows.get("images") if isinstance(rows, dict) else rows
    named = isinstance(rows, list | tuple) and all(
        isinstance(row, Mapping) and {"id", "file_name"} <= row.keys() for row in rows
    )
    if not named:
        raise ValueError(
            f'{where}: wanted a list of images, or a COCO file with one: {{"images": [{{"id", '
            '"file_name", "height", "width"}, ...]}'
        )
    return {row["id"]: row for row in rows}


def _check_size(size: tuple[int, int], image: Mapping[str, Any]) -> None:
    wanted = (image.get("height", size[0]), image.get("width", size[1]))
    if wanted != size:
        raise ImageError(
            f"it is {size} (height, width) upright; the list of images says {wanted}, and boxes "
            "are for that size"
        )
