"""The paper's prompt simulation, vectorised over masks (arXiv 2304.02643, Appendix A).

A first prompt (point or noisy box), then points in the error region of the last prediction, whose
logits come back as mask prompt.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from textsam.modeling.prompt_encoder import (
    BACKGROUND,
    BOX_END,
    BOX_START,
    FOREGROUND,
    NOT_A_POINT,
    PromptBatch,
)

__all__ = ["PromptConfig", "add_error_points", "box_prompts", "first_prompts", "sample_pixels"]


@dataclass(frozen=True, kw_only=True)
class PromptConfig:
    """Appendix A's numbers; `box_noise_limit` is 20 px at 1024, so a share of the frame here."""

    box_probability: float = 0.5
    box_noise: float = 0.1
    box_noise_limit: float = 20 / 1024


def sample_pixels(region: Tensor, generator: torch.Generator) -> Tensor:
    """One pixel, uniformly, of each region: (P, h, w) bool -> (P, 2) float x, y.

    A region without pixels falls back to the whole frame.
    """
    flat = region.flatten(1)
    flat = torch.where(flat.any(1, keepdim=True), flat, True)
    running = flat.cumsum(1, dtype=torch.int32)
    count = running[:, -1:]
    nth = (
        (torch.rand(count.shape, generator=generator) * count).to(torch.int32).clamp(max=count - 1)
    )
    index = torch.searchsorted(running, nth + 1)[:, 0]
    width = region.shape[-1]
    return torch.stack([index % width, index // width], dim=1).float()


def box_prompts(
    masks: Tensor, generator: torch.Generator, *, config: PromptConfig
) -> tuple[Tensor, Tensor]:
    """Noisy boxes of masks (P, S, S) as corner points (P, 2, 2) and labels (P, 2).

    Every coordinate gets Gaussian noise of 10% of its side, at most the limit (Appendix A).
    """
    side = masks.shape[-1]
    columns, rows = masks.any(1), masks.any(2)
    low = torch.stack([_first(columns), _first(rows)], dim=1)
    high = side - torch.stack([_first(columns.flip(1)), _first(rows.flip(1))], dim=1)
    corners = torch.stack([low, high], dim=1).float()
    extent = (corners[:, 1] - corners[:, 0])[:, None]
    noise = torch.randn(corners.shape, generator=generator) * extent * config.box_noise
    limit = config.box_noise_limit * side
    noisy = (corners + noise.clamp(-limit, limit)).clamp(0, side)
    labels = torch.tensor([BOX_START, BOX_END]).expand(len(masks), 2)
    return noisy, labels


def first_prompts(
    masks: Tensor, image_index: Tensor, generator: torch.Generator, *, config: PromptConfig
) -> PromptBatch:
    """A point or a box for each mask (P, S, S), as two point slots each."""
    point = sample_pixels(masks, generator)
    points = torch.stack([point, torch.zeros_like(point)], dim=1)
    labels = torch.tensor([FOREGROUND, NOT_A_POINT]).repeat(len(masks), 1)
    corners, corner_labels = box_prompts(masks, generator, config=config)
    boxed = torch.rand(len(masks), generator=generator) < config.box_probability
    return PromptBatch(
        points=torch.where(boxed[:, None, None], corners, points),
        labels=torch.where(boxed[:, None], corner_labels, labels),
        image_index=image_index,
    )


def add_error_points(
    prompts: PromptBatch,
    predicted: Tensor,
    logits: Tensor,
    masks: Tensor,
    generator: torch.Generator,
    *,
    ignore: Tensor | None = None,
) -> PromptBatch:
    """The next prompts: one more point in the error region, and the last logits as mask prompt.

    Args:
        prompts: The prompts so far.
        predicted: (P, S, S) bool, the prediction with the highest predicted IoU.
        logits: (P, 1, 4s, 4s), its unthresholded logits.
        masks: (P, S, S) bool truth.
        generator: Source of randomness.
        ignore: (P, S, S) bool, pixels that are no error whatever the prediction says.

    Returns:
        Prompts with N + 1 points: foreground in a false negative, background in a false positive;
        where nothing is wrong, a foreground point inside the mask.
    """
    error = predicted ^ masks
    if ignore is not None:
        error = error & ~ignore
    region = torch.where(error.flatten(1).any(1)[:, None, None], error, masks)
    point = sample_pixels(region, generator)
    x, y = point.long().unbind(1)
    inside = masks[torch.arange(len(masks)), y, x]
    label = torch.where(inside, FOREGROUND, BACKGROUND)
    return replace(
        prompts,
        points=torch.cat([prompts.points, point[:, None]], dim=1),
        labels=torch.cat([prompts.labels, label[:, None]], dim=1),
        masks=logits.detach(),
        has_mask=None,
    )


def _first(line: Tensor) -> Tensor:
    """Index of the first True of each row of (P, n) bool."""
    return line.float().argmax(dim=1)
