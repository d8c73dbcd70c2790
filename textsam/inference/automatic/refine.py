"""A second look at automatic masks: each is asked again with its logits, its box and its point.

Boxes get a second pass with their own mask in the paper (arXiv 2304.02643, Appendix D.4), automatic
masks do not. Small models gain by it: one point means little to them, a mask and its box more.
Measured with `tiny` (training/RUNS.md, "Everything").

Only masks that differ are asked again: of those whose boxes overlap a lot the best, so that of the
hundreds that a grid gives some tens are left.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from textsam.inference.automatic.point_grid import Answers, AutomaticReport, box_nms, cell_boxes
from textsam.inference.photo.encoded import EncodedPhoto
from textsam.inference.photo.postprocess import stability_score
from textsam.inference.photo.prediction import decode
from textsam.modeling.prompt_encoder import BOX_END, BOX_START, FOREGROUND, PromptBatch
from textsam.values.settings import AutomaticSettings

__all__ = ["second_look"]

# Looser than the filter that follows (.7): masks may come together, or apart.
_ALIKE = 0.85


def second_look(
    photo: EncodedPhoto,
    answers: Iterable[Answers],
    *,
    settings: AutomaticSettings,
    report: AutomaticReport,
) -> Iterator[Answers]:
    """Answers of a grid, asked again.

    All first answers that are stable enough are kept until the last has come: m^2 x 2 bytes each.

    Args:
        photo: What they were asked of.
        answers: Batch by batch, at least one.
        settings: `stability_score_thresh`, here measured on the decoder's grid,
            `points_per_batch` and, for what comes out, `pred_iou_thresh`.
        report: Counts "alike", what is asked again, and "iou again", what passes afterwards.

    Yields:
        One mask for each that is asked, by falling predicted IoU of the first look.
    """
    kept: list[Answers] = []
    kept_boxes: list[Tensor] = []
    for answer in answers:
        filled, boxes = cell_boxes(answer.logits, photo.frame)
        stable = stability_score(answer.logits, offset=settings.stability_score_offset)
        good = filled & (stable >= settings.stability_score_thresh)
        stays = answer[good]
        kept.append(replace(stays, logits=stays.logits.half()))
        kept_boxes.append(boxes[good])
    boxes = torch.cat(kept_boxes)
    chosen = box_nms(boxes, torch.cat([answer.iou for answer in kept]), _ALIKE)
    report.count("alike", len(chosen))
    every = [(answer, k) for answer in kept for k in range(len(answer))]
    for start in range(0, len(chosen), settings.points_per_batch):
        part = chosen[start : start + settings.points_per_batch]
        found = _again(photo, [every[k] for k in part.tolist()], boxes[part])
        passing = found[found.iou > settings.pred_iou_thresh]
        report.count("iou again", len(passing))
        yield passing


def _again(photo: EncodedPhoto, asked: list[tuple[Answers, int]], boxes: Tensor) -> Answers:
    """The single mask of each of N first answers; boxes (N, 4) in cells."""
    count, device = len(asked), photo.parts.device
    points = torch.stack([answer.points[k] for answer, k in asked])
    first = torch.stack([answer.logits[k] for answer, k in asked]).float()
    corners = (boxes * (photo.frame.image_size / first.shape[-1])).reshape(count, 2, 2)
    prompts = PromptBatch(
        points=torch.cat([points[:, None], corners], dim=1).to(device),
        labels=torch.tensor([FOREGROUND, BOX_START, BOX_END]).expand(count, 3).to(device),
        image_index=torch.zeros(count, dtype=torch.int64, device=device),
        masks=first[:, None].to(device),
    )
    logits, iou = decode(photo, prompts)
    return Answers(logits=logits[:, 0], iou=iou[:, 0], points=points)
