"""Losses of the mask decoder (arXiv 2304.02643, Section 3 and Appendix A).

focal : dice = 20 : 1, the minimum over the readings of an ambiguous prompt, and the mean squared
error of the predicted IoU. Deviation: targets are soft (the share of a low-resolution cell that the
mask covers), which keeps borders finer than the decoder's stride.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Section 5 of arXiv 1708.02002, its best with gamma 2.
FOCAL_PAPER_ALPHA = 0.25


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of the terms, and the focal loss's share of foreground and its focus."""

    focal: float = 20.0  # Weight of the focal loss
    dice: float = 1.0  # Weight of the dice loss
    iou: float = 1.0  # Weight of the squared error of the predicted IoU
    # Not in the paper. 0.25 made decoders trained from scratch collapse to empty masks.
    alpha: float = 0.6  # The focal loss's share of foreground
    gamma: float = 2.0  # Its focus on what is still wrong; 0 for none
    # Further weight of cells on the mask's border in the focal loss: few of all cells, but they
    # decide whether a mask looks smooth. Not in the paper.
    boundary: float = 0.0


def soft_target(masks: Tensor, size: int) -> Tensor:
    """Share of each cell that a mask covers: (P, S, S) bool -> (P, size, size) float."""
    return F.interpolate(masks[:, None].float(), (size, size), mode="area")[:, 0]


def focal_loss(logits: Tensor, target: Tensor, weight: Tensor, *, config: LossConfig) -> Tensor:
    """Focal loss (arXiv 1708.02002) per mask, with soft targets |y - p|^gamma * BCE.

    Of logits (P, K, h, w) and target (P, 1, h, w) in [0, 1]: (P, K), the mean over the pixels that
    count, where weight (P, 1, h, w) is not zero.
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


class MaskLosses(NamedTuple):
    """Loss of each of P masks, and the true IoU of its four outputs, without gradient."""

    loss: Tensor
    true_iou: Tensor


def mask_losses(
    logits: Tensor,
    iou: Tensor,
    target: Tensor,
    weight: Tensor,
    *,
    config: LossConfig,
    single: Tensor,
    multiple: Tensor | None = None,
) -> MaskLosses:
    """Loss of a decoder call, mask by mask.

    Only the reading with the lowest mask loss is back-propagated (Section 3); every output that is
    in use learns to predict its own IoU. Nothing here joins masks, so the loss of a batch is the
    mean over its parts (ranks, micro-batches) weighted by their numbers of masks.

    Logits are (P, 4, h, w), the predicted IoU (P, 4), target and weight as in `focal_loss`.
    `single` (P,) bool are prompts whose mask 0 is trained: those of several parts (Section 3);
    `multiple` (P,) bool those whose three readings are, the others when None. Where both are, the
    loss is the mean of the two.
    """
    multiple = ~single if multiple is None else multiple
    one, three, true = _one_and_three(logits, iou, target, weight, config=config)
    total = torch.where(single, one, 0.0) + torch.where(multiple, three, 0.0)
    return MaskLosses(total / (single.int() + multiple.int()).clamp(min=1), true)


def _one_and_three(
    logits: Tensor, iou: Tensor, target: Tensor, weight: Tensor, *, config: LossConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss (P,) of mask 0, loss (P,) of the three readings, true IoU (P, 4)."""
    edged = weight
    if config.boundary:
        # The range of the target in 3 x 3 cells: one on a sharp border, zero away from it.
        edge = F.max_pool2d(target, 3, 1, 1) + F.max_pool2d(-target, 3, 1, 1)
        edged = weight * (1 + config.boundary * edge)
    mask_loss = config.focal * focal_loss(logits, target, edged, config=config)
    mask_loss = mask_loss + config.dice * dice_loss(logits, target, weight)
    with torch.no_grad():
        # What the predicted IoU is compared with must not be trained itself.
        true = mask_iou(logits, target, weight)
    quality = config.iou * (iou - true).square()
    one = mask_loss[:, 0] + quality[:, 0]
    three = mask_loss[:, 1:].min(dim=1).values + quality[:, 1:].mean(dim=1)
    return one, three, true
