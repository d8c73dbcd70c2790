"""Refined automatic masks: each is decoded again with its logits, its box and its point.

In the paper only detectors' boxes get such a second pass (arXiv 2304.02643, Appendix D.4). Small
models gain by it for automatic masks, too: one point means little to them, a mask with its box
more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from textsam.inference.automatic.point_grid import (
    AutomaticReport,
    PointMasks,
    box_nms,
    cell_boxes,
)
from textsam.inference.photo.encoded import EncodedPhoto
from textsam.inference.photo.prediction import decode, stability_score
from textsam.modeling.mask_decoder import BOX_END, BOX_START, FOREGROUND, PromptBatch
from textsam.values.settings import AutomaticSettings

__all__ = ["refine_masks"]

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
    """Decode the masks of a grid again, each with itself as mask prompt.

    All stable masks are kept in half precision until the last batch has come.

    Yields:
        One mask for each that is refined, by falling predicted IoU of the first pass.
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
        refined = _decode_again(photo, [places[k] for k in part.tolist()], boxes[part])
        passing = refined[refined.iou > settings.pred_iou_thresh]
        report.count("iou again", len(passing))
        yield passing


def _decode_again(
    photo: EncodedPhoto, places: list[tuple[PointMasks, int]], boxes: Tensor
) -> PointMasks:
    """The single mask of N masks' point, box (N, 4) in cells, and logits."""
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
    logits, iou = decode(photo, prompts)
    return PointMasks(logits=logits[:, 0], iou=iou[:, 0], points=points)
