"""Losses of the mask decoder (arXiv 2304.02643, Section 3 and Appendix A).

focal : dice = 20 : 1, the minimum over the readings of an ambiguous prompt, and the mean squared
error of the predicted IoU. Deviations: targets are soft (the share of a low-resolution cell that
the mask covers), which keeps borders below the decoder's stride; and focal loss weighs foreground
by `alpha` 0.6, since 0.25 made a decoder trained from scratch collapse to empty masks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["LossConfig", "dice_loss", "focal_loss", "mask_iou", "prediction_loss", "soft_target"]


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of the terms."""

    focal: float = 20.0
    dice: float = 1.0
    iou: float = 1.0
    alpha: float = 0.6
    gamma: float = 2.0


def soft_target(masks: Tensor, size: int) -> Tensor:
    """Share of each cell that a mask covers: (P, S, S) bool -> (P, size, size) float."""
    return F.interpolate(masks[:, None].float(), (size, size), mode="area")[:, 0]


def focal_loss(logits: Tensor, target: Tensor, weight: Tensor, *, config: LossConfig) -> Tensor:
    """Focal loss (arXiv 1708.02002) per mask, with soft targets |y - p|^gamma * BCE.

    Args:
        logits: (P, K, h, w).
        target: (P, 1, h, w) in [0, 1].
        weight: (P, 1, h, w), zero where pixels do not count.
        config: `alpha` and `gamma`.

    Returns:
        (P, K), the mean over the pixels that count.
    """
    error = F.binary_cross_entropy_with_logits(logits, target.expand_as(logits), reduction="none")
    modulation = (target - logits.sigmoid()).abs() ** config.gamma
    balance = config.alpha * target + (1 - config.alpha) * (1 - target)
    total = (error * modulation * balance * weight).sum((-2, -1))
    return total / weight.sum((-2, -1)).clamp(min=1)


def dice_loss(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Dice loss per mask, (P, K), shapes as in `focal_loss`; smoothed by 1 in both parts."""
    p = logits.sigmoid() * weight
    y = target * weight
    overlap = (p * y).sum((-2, -1))
    return 1 - (2 * overlap + 1) / (p.sum((-2, -1)) + y.sum((-2, -1)) + 1)


def mask_iou(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """IoU of thresholded logits (P, K, h, w) with the thresholded target, (P, K)."""
    counted = weight > 0
    p, y = (logits > 0) & counted, (target > 0.5) & counted
    union = (p | y).sum((-2, -1))
    return (p & y).sum((-2, -1)) / union.clamp(min=1)


def prediction_loss(
    logits: Tensor,
    iou: Tensor,
    target: Tensor,
    weight: Tensor,
    *,
    config: LossConfig,
    single: Tensor,
    multiple: Tensor,
) -> tuple[Tensor, Tensor]:
    """Loss of a decoder call.

    Only the reading with the lowest mask loss is back-propagated (Section 3); every output that is
    in use learns to predict its own IoU.

    Args:
        logits: (P, 4, h, w).
        iou: (P, 4) predicted.
        target: (P, 1, h, w) soft.
        weight: (P, 1, h, w).
        config: Weights.
        single: (P,) bool, prompts whose mask 0 is trained.
        multiple: (P,) bool, prompts whose three readings are trained.

    Returns:
        The scalar loss and the true IoU (P, 4), detached.
    """
    mask_loss = config.focal * focal_loss(logits, target, weight, config=config)
    mask_loss = mask_loss + config.dice * dice_loss(logits, target, weight)
    with torch.no_grad():
        true = mask_iou(logits, target, weight)
    quality = config.iou * (iou - true).square()
    one = mask_loss[:, 0] + quality[:, 0]
    three = mask_loss[:, 1:].min(dim=1).values + quality[:, 1:].mean(dim=1)
    total = (one * single).sum() + (three * multiple).sum()
    return total / (single.sum() + multiple.sum()).clamp(min=1), true
