"""Automatic masks: a grid of points, three masks each, and filters (arXiv 2304.02643, Appendix B).

A regular grid of points on the whole photo, and coarser grids on overlapping crops of it. Masks
with a low predicted IoU or stability are dropped, and masks that cover almost everything; box NMS
works within a crop by predicted IoU, then between crops in favour of the most zoomed ones. Small
pieces are removed and small holes filled.

With `AutomaticSettings.refine` each mask is decoded again with its logits, its box and its point.
In the paper only detectors' boxes get such a second pass (Appendix D.4). Small models gain by it
for automatic masks, too: one point means little to them, a mask with its box more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textsam.inference.automatic.point_grid import (
    AutomaticReport,
    PointMasks,
    box_nms,
    cell_boxes,
    decode_points,
    inclusive_boxes,
    point_grid,
)
from textsam.inference.photo.encoded import EncodedPhoto, encode_window, to_original_frame
from textsam.inference.photo.prediction import decode_above, stability_score, without_small_regions
from textsam.modeling.mask_decoder import BOX_END, BOX_START, FOREGROUND, PromptBatch
from textsam.results.segmentation import Segmentation
from textsam.values.geometry import Window
from textsam.values.rle import RLE, decode_rle, encode_masks, rle_areas, rle_boxes
from textsam.values.rle_ops import paste_rle
from textsam.values.settings import AutomaticSettings

Progress = Callable[[int, int], None]

# Masks at the photo's size are held in groups of this many bytes, then run-length coded.
_UPSCALED_BYTES = 128 * 1024 * 1024
# A mask that ends this near an inner edge of its crop was cut off by it; pixels, as in the released
# code.
_EDGE = 20.0


@dataclass(frozen=True, kw_only=True, eq=False)
class _WindowMasks:
    """N masks of the photo, found in one window or in several."""

    rles: list[RLE]
    boxes: Tensor  # (N, 4) boxes with INCLUSIVE ends, as the released code has them
    iou: Tensor  # (N,) predicted IoU
    stability: Tensor  # (N,) stability score
    zoom: Tensor  # (N,) float64, one over the area of the mask's window

    def __getitem__(self, index: Tensor) -> _WindowMasks:
        columns = {field.name: getattr(self, field.name) for field in fields(self)[1:]}
        return _WindowMasks(
            rles=[self.rles[i] for i in index.tolist()],
            **{name: column[index] for name, column in columns.items()},
        )

    @classmethod
    def join(cls, parts: list[_WindowMasks]) -> _WindowMasks:
        """The masks of several parts."""
        if not parts:
            empty = torch.zeros(0)
            return cls(rles=[], boxes=torch.zeros(0, 4), iou=empty, stability=empty, zoom=empty)
        names = [field.name for field in fields(cls)[1:]]
        return cls(
            rles=[rle for part in parts for rle in part.rles],
            **{name: torch.cat([getattr(part, name) for part in parts]) for name in names},
        )


def automatic_masks(
    photo: EncodedPhoto,  # the photo; its crops are encoded one after the other
    *,
    settings: AutomaticSettings,
    progress: Progress | None = None,  # called with (points done, points in all) after each batch
    report: AutomaticReport | None = None,  # filled with the number of masks left after each filter
) -> Segmentation:
    """Masks of everything, by falling predicted IoU; with crops the most zoomed first."""
    report = AutomaticReport() if report is None else report
    windows = crop_windows(photo.size, settings=settings)
    grids = [_grid(layer, settings) for _, layer in windows]
    total, done = sum(map(len, grids)), 0
    parts: list[_WindowMasks] = []

    def show(points: int) -> None:
        if progress is not None:
            progress(done + points, total)

    for (window, layer), grid in zip(windows, grids, strict=True):
        inner = photo if layer == 0 else encode_window(photo, window)
        masks = _pass_by_iou(inner, grid, settings=settings, report=report, show=show)
        if settings.refine:
            masks = refine_masks(inner, masks, settings=settings, report=report)
        parts.append(_place(photo, inner, window, masks, settings=settings, report=report))
        show(len(grid))
        done += len(grid)
    joined = _WindowMasks.join(parts)
    if len(windows) > 1:
        joined = joined[box_nms(joined.boxes, joined.zoom, settings.crop_nms_thresh)]
        report.count("crop nms", len(joined.rles))
    if settings.max_area < 1:
        areas = torch.as_tensor(rle_areas(joined.rles).astype(np.float64))
        limit = settings.max_area * photo.size[0] * photo.size[1]
        joined = joined[torch.nonzero(areas < limit)[:, 0]]
        report.count("area", len(joined.rles))
    if settings.min_mask_region_area:
        joined = _without_small_regions(joined, settings)
        report.count("regions", len(joined.rles))
    return Segmentation(
        photo.size,
        joined.rles,
        iou=joined.iou.numpy(),
        stability=joined.stability.numpy(),
        image=photo.origin,
    )


def crop_windows(size: tuple[int, int], *, settings: AutomaticSettings) -> list[tuple[Window, int]]:
    """The whole photo and its crops, as (window, layer)."""
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
                if x0 < x1 and y0 < y1:  # some crops of a photo of a few pixels are empty
                    windows.append((Window(x0, y0, x1, y1), layer))
    return windows


def _grid(layer: int, settings: AutomaticSettings) -> NDArray[np.float64]:
    return point_grid(
        max(1, settings.points_per_side // settings.crop_n_points_downscale_factor**layer)
    )


def _pass_by_iou(
    photo: EncodedPhoto,
    grid: NDArray[np.float64],
    *,
    settings: AutomaticSettings,
    report: AutomaticReport,
    show: Callable[[int], None],
) -> Iterator[PointMasks]:
    """The masks of a grid's points whose predicted IoU is high enough."""
    batch = settings.points_per_batch
    passing = decode_points(photo, grid, batch=batch, iou=settings.pred_iou_thresh)
    for number, masks in enumerate(passing, start=1):
        report.decoded += 3 * len(grid[(number - 1) * batch : number * batch])
        report.count("iou", len(masks))
        yield masks
        if number * batch < len(grid):  # the last batch counts when the whole window is done
            show(number * batch)


def _place(
    photo: EncodedPhoto,
    inner: EncodedPhoto,
    window: Window,
    batches: Iterator[PointMasks],
    *,
    settings: AutomaticSettings,
    report: AutomaticReport,
) -> _WindowMasks:
    """Masks of a window at the photo's size, after all filters that look at one window."""
    largest = max((window.x1 - window.x0) * (window.y1 - window.y0), inner.frame.image_size**2)
    group = max(1, _UPSCALED_BYTES // (4 * largest))
    parts = [
        _upscale(photo, inner, window, part, settings=settings, report=report)
        for masks in batches
        for part in map(masks.__getitem__, torch.arange(len(masks)).split(group))
        if len(part)
    ]
    masks = _WindowMasks.join(parts)
    masks = masks[box_nms(masks.boxes, masks.iou, settings.box_nms_thresh)]
    report.count("nms", len(masks.rles))
    return masks


def _upscale(
    photo: EncodedPhoto,
    inner: EncodedPhoto,
    window: Window,
    masks: PointMasks,
    *,
    settings: AutomaticSettings,
    report: AutomaticReport,
) -> _WindowMasks:
    """Masks at the photo's size that are stable and not cut off by their crop."""
    full = to_original_frame(masks.logits, inner.frame)
    stability = stability_score(full, offset=settings.stability_score_offset)
    stable = stability >= settings.stability_score_thresh
    report.count("stability", int(stable.sum()))
    inside = (full[stable] > 0).numpy()
    del full  # the largest array here; the codes below take their own memory
    x0, y0, x1, y1 = window
    boxes = inclusive_boxes(inside) + torch.tensor([x0, y0, x0, y0])
    edge = torch.tensor(window, dtype=torch.float32)
    border = torch.tensor([0, 0, photo.size[1], photo.size[0]], dtype=torch.float32)
    near = ((boxes - edge).abs() <= _EDGE) & ((boxes - border).abs() > _EDGE)
    whole = ~near.any(1)
    report.count("edge", int(whole.sum()))
    rles = encode_masks(inside[whole.numpy()])
    if inner is not photo:
        rles = [paste_rle(rle, x0, y0, size=photo.size) for rle in rles]
    return _WindowMasks(
        rles=rles,
        boxes=boxes[whole],
        iou=masks.iou[stable][whole],
        stability=stability[stable][whole],
        zoom=torch.full((len(rles),), 1 / ((x1 - x0) * (y1 - y0)), dtype=torch.float64),
    )


def _without_small_regions(masks: _WindowMasks, settings: AutomaticSettings) -> _WindowMasks:
    """Masks without small pieces and holes."""
    rles, unchanged = [], []
    for rle in masks.rles:
        mask = decode_rle(rle)
        clean = without_small_regions(mask, settings.min_mask_region_area)
        same = bool((clean == mask).all())
        rles.append(rle if same else encode_masks(clean[None])[0])
        unchanged.append(float(same))
    boxes = torch.from_numpy(rle_boxes(rles).astype(np.float32)) if rles else masks.boxes
    boxes = boxes - torch.tensor([0.0, 0.0, 1.0, 1.0])
    # Masks may have become alike; as in the released code, one that needed no change is preferred.
    limit = max(settings.box_nms_thresh, settings.crop_nms_thresh)
    keep = box_nms(boxes, torch.tensor(unchanged), limit)
    return replace(masks, rles=rles, boxes=boxes)[keep.sort().values]


# Box IoU from which only the best of several masks is refined. Looser than the filter that follows
# (.7), since refined masks may come together or apart.
_ALIKE = 0.85


def refine_masks(
    photo: EncodedPhoto,
    batches: Iterable[PointMasks],  # masks of points, at least one batch
    *,
    # `stability_score_thresh`, here measured on the decoder's grid, `points_per_batch` and, for
    # refined masks, `pred_iou_thresh`.
    settings: AutomaticSettings,
    # Counts "alike", the masks that are refined, and "iou again", those that then pass.
    report: AutomaticReport,
) -> Iterator[PointMasks]:
    """Decode the masks of a grid again, each with itself as mask prompt, best first.

    All stable masks are kept in half precision until the last batch has come.
    """
    stable: list[PointMasks] = []
    stable_boxes: list[Tensor] = []
    for masks in batches:
        filled, boxes = cell_boxes(masks.logits, photo.frame)
        stability = stability_score(masks.logits, offset=settings.stability_score_offset)
        good = filled & (stability >= settings.stability_score_thresh)
        passing = masks[good]
        stable.append(replace(passing, logits=passing.logits.half()))
        stable_boxes.append(boxes[good])
    boxes = torch.cat(stable_boxes)
    chosen = box_nms(boxes, torch.cat([masks.iou for masks in stable]), _ALIKE)
    report.count("alike", len(chosen))
    places = [(masks, k) for masks in stable for k in range(len(masks))]
    for part in chosen.split(settings.points_per_batch):
        if not len(part):
            continue
        again = [places[k] for k in part.tolist()]
        passing = _decode_again(photo, again, boxes[part], limit=settings.pred_iou_thresh)
        report.count("iou again", len(passing))
        yield passing


def _decode_again(
    photo: EncodedPhoto, places: list[tuple[PointMasks, int]], boxes: Tensor, *, limit: float
) -> PointMasks:
    """The single mask of N masks' point, box (N, 4) in cells, and logits, if its IoU is higher."""
    count, device = len(places), photo.parts.device
    points = torch.stack([masks.points[k] for masks, k in places])
    first = torch.stack([masks.logits[k] for masks, k in places]).float()
    corners = (boxes * (photo.frame.image_size / first.shape[-1])).reshape(count, 2, 2)
    prompts = PromptBatch(
        points=torch.cat([points[:, None], corners], dim=1).to(device),
        labels=torch.tensor([FOREGROUND, BOX_START, BOX_END]).expand(count, 3).to(device),
        image_index=torch.zeros(count, dtype=torch.int64, device=device),
        masks=first[:, None].to(device),
    )
    logits, iou, index = decode_above(photo, prompts, limit, masks=slice(0, 1))
    return PointMasks(logits=logits, iou=iou, points=points[index])
