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
from typing import TYPE_CHECKING

import torch

from textsam.inference.point_grid import Answers, box_nms, inclusive_boxes, inside_photo
from textsam.inference.postprocess import stability_score
from textsam.modeling.prompt_encoder import BOX_END, BOX_START, FOREGROUND, PromptBatch

if TYPE_CHECKING:
    from textsam.inference.automatic import AutomaticSettings
    from textsam.inference.view import ImageView

__all__ = ["second_look"]

# Looser than the filter that follows (.7): masks may come together, or apart.
_ALIKE = 0.85


def second_look(
    view: ImageView, answers: Iterable[Answers], *, settings: AutomaticSettings
) -> Iterator[Answers]:
    """Answers of a grid, asked again.

    All first answers are kept until the last has come: m^2 x 2 bytes a mask that is stable enough.

    Args:
        view: What they were asked of.
        answers: Batch by batch.
        settings: `least_stability`, measured on the decoder's grid, and `points_per_batch`.

    Yields:
        For each batch that comes an empty one with its `asked`; then the masks, one each.
    """
    kept: list[Answers] = []
    for answer in answers:
        stability = stability_score(answer.logits, offset=settings.stability_offset)
        filled = inside_photo(answer.logits, view.frame).flatten(1).any(1)
        good = answer[filled & (stability >= settings.least_stability)]
        kept.append(replace(good, logits=good.logits.half(), asked=0))
        yield answer[torch.zeros(0, dtype=torch.int64)]
    if not any(len(part.iou) for part in kept):
        return
    every = Answers(
        logits=torch.cat([part.logits for part in kept]),
        iou=torch.cat([part.iou for part in kept]),
        points=torch.cat([part.points for part in kept]),
        asked=0,
    )
    boxes = inclusive_boxes(inside_photo(every.logits, view.frame).numpy())
    boxes[:, 2:] += 1  # half-open, so that a box of one cell has an area
    chosen = box_nms(boxes, every.iou, _ALIKE)
    cell = view.frame.image_size / every.logits.shape[-1]
    for part in chosen.split(settings.points_per_batch):
        yield _again(view, every[part], boxes[part] * cell)


def _again(view: ImageView, answer: Answers, boxes: torch.Tensor) -> Answers:
    """The single mask of each; boxes (N, 4) in model pixels."""
    count, device = len(answer.iou), view.model.device
    points = torch.cat([answer.points[:, None], boxes.reshape(count, 2, 2)], dim=1)
    prompts = PromptBatch(
        points=points.to(device),
        labels=torch.tensor([FOREGROUND, BOX_START, BOX_END]).expand(count, 3).to(device),
        image_index=torch.zeros(count, dtype=torch.int64, device=device),
        masks=answer.logits.float()[:, None].to(device),
    )
    logits, iou = view.decode(prompts)
    return replace(answer, logits=logits[:, 0], iou=iou[:, 0])
