"""Everything in the picture: a grid of points, three masks each, filters (RECIPE section 7).

arXiv 2304.02643, Appendix B: a regular grid of points on the whole photo, and coarser grids on
overlapping crops of it; masks that the decoder doubts, that change with the cut-off or that cover
almost everything are dropped; box NMS within a crop by predicted IoU, then across crops in favour
of the most zoomed; small pieces are removed and small holes filled. Where the released code does
something else, `AutomaticSettings.released_code` has its numbers.

Memory: a batch of prompts at the decoder's resolution, and as many masks at the photo's as
`_UPSCALED_BYTES` hold; what is kept is run-length coded at once. `refine` also keeps a window's
first answers at the decoder's resolution, in half precision. With `tiny` the peak was 1.7 GiB
on a photo of 3840 x 2160 pixels with a layer of crops (0.9 of it model and libraries).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textsam.inference.automatic.point_grid import (
    Answers,
    AutomaticReport,
    box_nms,
    decode_points,
    inclusive_boxes,
    point_grid,
)
from textsam.inference.automatic.refine import second_look
from textsam.inference.photo.encoded import EncodedPhoto, encode_window
from textsam.inference.photo.postprocess import (
    stability_score,
    to_original_frame,
    without_small_regions,
)
from textsam.results.segmentation import Segmentation
from textsam.values.geometry import Window
from textsam.values.rle import RLE, decode_rle, encode_masks, rle_areas, rle_boxes
from textsam.values.rle_ops import paste_rle
from textsam.values.settings import AutomaticSettings

__all__ = [
    "AutomaticReport",
    "automatic_masks",
    "crop_windows",
    "point_grid",
]

Progress = Callable[[int, int], None]

_UPSCALED_BYTES = 128 * 1024 * 1024
_EDGE = 20.0  # (code) pixels from a crop's inner edge within which a mask is cut off by it


@dataclass(frozen=True, kw_only=True, eq=False)
class _Masks:
    """N masks of the photo: codes, boxes with INCLUSIVE ends (code), numbers, crop's area."""

    rles: list[RLE]
    boxes: Tensor
    iou: Tensor
    stability: Tensor
    zoom: Tensor

    def __getitem__(self, index: Tensor) -> _Masks:
        return _Masks(
            rles=[self.rles[i] for i in index.tolist()],
            boxes=self.boxes[index],
            iou=self.iou[index],
            stability=self.stability[index],
            zoom=self.zoom[index],
        )

    @classmethod
    def join(cls, parts: list[_Masks]) -> _Masks:
        """All masks of several."""
        if not parts:
            empty = torch.zeros(0)
            return cls(rles=[], boxes=torch.zeros(0, 4), iou=empty, stability=empty, zoom=empty)
        return cls(
            rles=[rle for part in parts for rle in part.rles],
            boxes=torch.cat([part.boxes for part in parts]),
            iou=torch.cat([part.iou for part in parts]),
            stability=torch.cat([part.stability for part in parts]),
            zoom=torch.cat([part.zoom for part in parts]),
        )


def automatic_masks(
    photo: EncodedPhoto,
    *,
    settings: AutomaticSettings,
    progress: Progress | None = None,
    report: AutomaticReport | None = None,
) -> Segmentation:
    """Masks of everything.

    Args:
        photo: The photo; crops of it are encoded by its model.
        settings: See there.
        progress: Called with (points done, points in all) after each batch; the last one of a
            window counts when all of the window is done.
        report: Filled with the counts before and after each filter.

    Returns:
        Masks with predicted IoU and stability, without labels: by falling predicted IoU, and with
        crops the most zoomed first.
    """
    report = AutomaticReport() if report is None else report
    windows = crop_windows(photo.size, settings=settings)
    total = sum(len(_grid(layer, settings)) for _, layer in windows)
    done = 0
    parts: list[_Masks] = []

    def tell(points: int) -> None:
        if progress is not None:
            progress(done + points, total)

    for window, layer in windows:
        grid = _grid(layer, settings)
        parts.append(
            _of_window(
                photo,
                window,
                layer=layer,
                grid=grid,
                settings=settings,
                report=report,
                tell=tell,
            )
        )
        tell(len(grid))
        done += len(grid)
    masks = _Masks.join(parts)
    if len(windows) > 1:
        masks = masks[box_nms(masks.boxes, masks.zoom, settings.crop_nms_thresh)]
        report.count("crop nms", len(masks.rles))
    if settings.max_area < 1:
        share = torch.as_tensor(rle_areas(masks.rles).astype(np.float64))
        most = settings.max_area * photo.size[0] * photo.size[1]
        masks = masks[torch.nonzero(share < most)[:, 0]]
        report.count("area", len(masks.rles))
    if settings.min_mask_region_area:
        masks = _cleaned(masks, settings=settings)
        report.count("regions", len(masks.rles))
    return Segmentation(
        photo.size,
        masks.rles,
        iou=masks.iou.numpy(),
        stability=masks.stability.numpy(),
        image=photo.image,
    )


def crop_windows(size: tuple[int, int], *, settings: AutomaticSettings) -> list[tuple[Window, int]]:
    """The whole photo and its crops, as (window, layer).

    Of a photo of a few pixels some crops would be empty; they are left out.
    """
    height, width = size
    windows = [(Window(0, 0, width, height), 0)]
    for layer in range(1, settings.crop_n_layers + 1):
        count = 2**layer
        overlap = int(settings.crop_overlap_ratio * min(height, width) * (2 / count))
        w, h = (math.ceil((overlap * (count - 1) + side) / count) for side in (width, height))
        for x in range(count):
            for y in range(count):
                x0, y0 = x * (w - overlap), y * (h - overlap)
                x1, y1 = min(x0 + w, width), min(y0 + h, height)
                if x0 < x1 and y0 < y1:
                    windows.append((Window(x0, y0, x1, y1), layer))
    return windows


def _grid(layer: int, settings: AutomaticSettings) -> NDArray[np.float64]:
    return point_grid(
        max(1, settings.points_per_side // settings.crop_n_points_downscale_factor**layer)
    )


def _of_window(
    photo: EncodedPhoto,
    window: Window,
    *,
    layer: int,
    grid: NDArray[np.float64],
    settings: AutomaticSettings,
    report: AutomaticReport,
    tell: Callable[[int], None],
) -> _Masks:
    """Masks of the whole photo or of a crop, after all filters that look at one window."""
    x0, y0, x1, y1 = window
    inner = photo if layer == 0 else encode_window(photo, window)
    answers = _counted(inner, grid, settings=settings, report=report, tell=tell)
    if settings.refine:
        answers = second_look(inner, answers, settings=settings, report=report)
    largest = max((x1 - x0) * (y1 - y0), inner.frame.image_size**2)
    step = max(1, _UPSCALED_BYTES // (4 * largest))
    found = [
        _kept(photo, inner, window=window, answer=part, settings=settings, report=report)
        for answer in answers
        for part in map(answer.__getitem__, torch.arange(len(answer)).split(step))
        if len(part)
    ]
    masks = _Masks.join(found)
    masks = masks[box_nms(masks.boxes, masks.iou, settings.box_nms_thresh)]
    report.count("nms", len(masks.rles))
    return masks


def _counted(
    photo: EncodedPhoto,
    grid: NDArray[np.float64],
    *,
    settings: AutomaticSettings,
    report: AutomaticReport,
    tell: Callable[[int], None],
) -> Iterator[Answers]:
    """What the decoder does not doubt of a grid's answers; tells how many points are done.

    Not of the last ones: after them the window is not done yet.
    """
    batch = settings.points_per_batch
    for number, answer in enumerate(decode_points(photo, grid, batch=batch), start=1):
        report.asked += len(answer)
        kept = answer[answer.iou > settings.pred_iou_thresh]
        report.count("iou", len(kept))
        yield kept
        if number * batch < len(grid):
            tell(number * batch)


def _kept(
    photo: EncodedPhoto,
    inner: EncodedPhoto,
    *,
    window: Window,
    answer: Answers,
    settings: AutomaticSettings,
    report: AutomaticReport,
) -> _Masks:
    """Upscale, measure stability and boxes once, and code what passes."""
    x0, y0, x1, y1 = window
    iou = answer.iou
    full = to_original_frame(answer.logits, inner.frame)
    stability = stability_score(full, offset=settings.stability_score_offset)
    good = stability >= settings.stability_score_thresh
    report.count("stability", int(good.sum()))
    masks = (full[good] > 0).numpy()
    del full
    iou, stability = iou[good], stability[good]
    boxes = inclusive_boxes(masks) + torch.tensor([x0, y0, x0, y0])
    edge = torch.tensor(window, dtype=torch.float32)
    border = torch.tensor([0, 0, photo.size[1], photo.size[0]], dtype=torch.float32)
    near = ((boxes - edge).abs() <= _EDGE) & ((boxes - border).abs() > _EDGE)
    whole = ~near.any(1)
    report.count("edge", int(whole.sum()))
    rles = encode_masks(masks[whole.numpy()])
    if inner is not photo:
        rles = [paste_rle(rle, x0, y0, size=photo.size) for rle in rles]
    return _Masks(
        rles=rles,
        boxes=boxes[whole],
        iou=iou[whole],
        stability=stability[whole],
        zoom=torch.full((int(whole.sum()),), 1 / ((x1 - x0) * (y1 - y0)), dtype=torch.float64),
    )


def _cleaned(masks: _Masks, *, settings: AutomaticSettings) -> _Masks:
    """Without small pieces and holes; of what became alike the untouched one stays (code)."""
    rles, untouched = [], []
    for rle in masks.rles:
        mask = decode_rle(rle)
        clean = without_small_regions(mask, settings.min_mask_region_area)
        same = bool((clean == mask).all())
        rles.append(rle if same else encode_masks(clean[None])[0])
        untouched.append(float(same))
    boxes = torch.from_numpy(rle_boxes(rles).astype(np.float32)) if rles else masks.boxes
    boxes = boxes - torch.tensor([0.0, 0.0, 1.0, 1.0])
    keep = box_nms(
        boxes, torch.tensor(untouched), max(settings.box_nms_thresh, settings.crop_nms_thresh)
    )
    return replace(masks, rles=rles, boxes=boxes)[keep.sort().values]
