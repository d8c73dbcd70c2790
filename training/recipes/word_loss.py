"""The loss of a dense text head: names to maps."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from textsam.clip.pathway import DenseTextHead

from ..losses import dice_loss
from .word_draw import WordConfig, WordQuestions

__all__ = ["WordLoss", "maps_by_photo"]


class WordLoss:
    """Twice BCE, dice of the names that are there, and BCE of each map's peak."""

    def __init__(self, head: DenseTextHead, *, config: WordConfig) -> None:
        self.head = head
        self.config = config

    def __call__(
        self, features: Tensor, questions: WordQuestions
    ) -> tuple[Tensor, dict[str, float]]:
        """Loss and figures of features (B, D, h8, w8) of B views."""
        present, weight, target = questions.present, questions.weights, questions.targets
        logits = maps_by_photo(self.head, features, questions.photos, questions.queries)
        balance = 1 + (self.config.positive_weight - 1) * target
        error = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        bce = (error * balance * weight).sum((1, 2)) / weight.sum((1, 2)).clamp(min=1)
        dice = dice_loss(logits[:, None], target[:, None], weight[:, None])[:, 0]
        best = (
            logits.masked_fill(weight < 0.5, -30.0).flatten(1).topk(self.config.peak_cells).values
        )
        peak = torch.logsumexp(best, dim=1) - math.log(self.config.peak_cells)
        loss = 2 * bce.mean() + dice[present].mean()
        loss = loss + self.config.peak * F.binary_cross_entropy_with_logits(peak, present.float())
        with torch.no_grad():
            p, y = (logits > 0) & (weight > 0), (target > 0.5) & (weight > 0)
            iou = (p & y).sum((1, 2)) / (p | y).sum((1, 2)).clamp(min=1)
        return loss, {
            "map_iou": iou[present].mean().item(),
            "peak_present": peak[present].mean().item(),
            "peak_absent": peak[~present].mean().item(),
        }


def maps_by_photo(head: DenseTextHead, features: Tensor, photos: Tensor, queries: Tensor) -> Tensor:
    """Maps (P, h8, w8) of phrases (P, D) on the photos they point at, (P,) rising.

    As `DenseTextHead.logits`, without a copy of a photo's features for each of its phrases.
    """
    counts = torch.bincount(photos, minlength=len(features)).tolist()
    flat = features.flatten(2)
    cosine = torch.cat([part @ flat[i] for i, part in enumerate(queries.split(counts))])
    return cosine.unflatten(1, features.shape[-2:]) * head.log_scale.exp() + head.bias
