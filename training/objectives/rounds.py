"""Prompt, predict, correct: the rounds of arXiv 2304.02643, Appendix A, on encoded images.

No gradient passes between rounds, since logits are fed back detached. So each of the paper's eleven
rounds can be checkpointed: its decoder call runs again in the backward pass, for a third of the
memory and 1.4 times the decoder's time. (A backward pass inside the forward pass, round by round,
would hide gradients from the hooks of DDP and FSDP.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from textsam.modeling.image_encoder import ImageFeatures
from textsam.modeling.mask_decoder import PromptBatch
from textsam.modeling.sam import Sam

from ..data.batch import ViewBatch
from ..losses import LossConfig, mask_losses, soft_target
from ..prompting import PromptConfig, PromptSimulator
from .randomness import photo_random


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What P predictions are compared with."""

    masks: Tensor  # (P, S, S) bool
    # (P, S, S) bool: void pixels and the frame's padding, which count in no loss and get no
    # points
    ignore: Tensor
    target: Tensor  # (P, 1, 4s, 4s) float, share of each cell that the mask covers
    weight: Tensor  # (P, 1, 4s, 4s) float, zero where nothing counts

    @classmethod
    def of(cls, batch: ViewBatch, *, mask_size: int) -> Truth:
        """The truth of a batch, on the batch's device; `mask_size` is the decoder's 4s."""
        masks = batch.masks
        padding = torch.ones(
            len(batch.views), *masks.shape[1:], dtype=torch.bool, device=masks.device
        )
        for row, pixels in zip(padding, batch.pixels, strict=True):
            row[: pixels.shape[1], : pixels.shape[2]] = False
        # `void` is per mask, `padding` per photo.
        ignore = batch.void | padding[batch.image_index]
        return cls(
            masks=masks,
            ignore=ignore,
            target=soft_target(masks, mask_size)[:, None],
            weight=1 - soft_target(ignore, mask_size)[:, None],
        )


def start_rounds(
    sam: Sam, batch: ViewBatch, *, config: PromptConfig
) -> tuple[Truth, PromptSimulator]:
    """What the masks of a batch are compared with, and what prompts them."""
    truth = Truth.of(batch, mask_size=sam.config.mask_size)
    random = photo_random(batch, stream="prompts")
    simulator = PromptSimulator(
        truth.masks, batch.image_index, random, config=config, ignore=truth.ignore
    )
    return truth, simulator


class RoundLosses(NamedTuple):
    """Loss (P,), the mean over rounds, and the true IoU (P, rounds) of the fed back masks."""

    loss: Tensor
    iou: Tensor


def decode_rounds(
    sam: Sam,
    features: ImageFeatures,
    prompts: PromptBatch,
    simulator: PromptSimulator,
    truth: Truth,
    *,
    loss: LossConfig,
    single: Tensor,
    multiple: Tensor,
    follow_single: Tensor | None = None,
    recompute: bool = True,
) -> RoundLosses:
    """Go through all rounds.

    The first round trains mask 0 where `single` (P,) bool, and the three readings where `multiple`
    (P,) bool. In later rounds there is more than one prompt, so mask 0 is trained (Section 3).
    Where three readings are trained, the one with the highest predicted IoU is fed back, except
    where `follow_single` (P,) bool: there mask 0 is.

    `recompute` checkpoints each round; loss and gradients are the same. `sam` may be frozen as a
    whole: gradients then reach the prompt tokens only.
    """
    total = torch.zeros(len(truth.masks), device=truth.masks.device)
    reached = []
    rounds = simulator.config.rounds
    # A prompt that means one object is answered by mask 0 in use.
    follow_best = multiple if follow_single is None else multiple & ~follow_single
    for index in range(rounds):
        inputs = (sam, features, prompts, truth, loss, single, multiple, follow_best)
        if recompute and torch.is_grad_enabled():
            made = checkpoint(_decode_round, *inputs, use_reentrant=False)
        else:
            made = _decode_round(*inputs)
        losses, logits, iou = made
        total = total + losses
        reached.append(iou)
        if index + 1 < rounds:
            prompts = simulator.follow(prompts, logits, index=index + 1)
            # From now on there are several prompts, so only mask 0 is trained (Section 3).
            single, multiple = torch.ones_like(single), torch.zeros_like(multiple)
            follow_best = multiple
    return RoundLosses(total / rounds, torch.stack(reached, dim=1))


def _decode_round(
    sam: Sam,
    features: ImageFeatures,
    prompts: PromptBatch,
    truth: Truth,
    loss: LossConfig,
    single: Tensor,
    multiple: Tensor,
    follow_best: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss (P,), logits (P, 1, 4s, 4s) to feed back and their true IoU (P,)."""
    prediction = sam.decode(features, prompts)
    # In half precision, sums over a mask's pixels would lose small terms.
    logits, iou = prediction.logits.float(), prediction.iou.float()
    losses = mask_losses(
        logits, iou, truth.target, truth.weight, config=loss, single=single, multiple=multiple
    )
    rows = torch.arange(len(iou), device=iou.device)
    best = torch.where(follow_best, 1 + iou[:, 1:].argmax(1), 0)
    return losses.loss, logits.detach()[rows, best, None], losses.true_iou[rows, best]


def set_decoder_dropout(sam: Sam, rate: float) -> None:
    """Set the decoder's dropout (Appendix A: 0.1), which acts in training mode only."""
    if not 0 <= rate < 1:
        raise ValueError(f"decoder dropout is {rate}; wanted a share in [0, 1), the paper's is 0.1")
    for module in sam.mask_decoder.transformer.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = rate
