"""Losses against references written out number by number."""

from __future__ import annotations

import math

import pytest
import torch

from training.losses import (
    LossConfig,
    dice_loss,
    focal_loss,
    mask_iou,
    prediction_loss,
    soft_target,
)

CONFIG = LossConfig()
LOGITS = torch.tensor([[[[2.0, -1.0], [0.5, -3.0]]]])
TARGET = torch.tensor([[[[1.0, 0.0], [1.0, 1.0]]]])
EVERY = torch.ones(1, 1, 2, 2)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_focal_loss_by_hand() -> None:
    total = 0.0
    for x, y in zip([2.0, -1.0, 0.5, -3.0], [1, 0, 1, 1], strict=True):
        p = _sigmoid(x)
        pt = p if y else 1 - p
        alpha = CONFIG.alpha if y else 1 - CONFIG.alpha
        total += -alpha * (1 - pt) ** CONFIG.gamma * math.log(pt)
    got = focal_loss(LOGITS, TARGET, EVERY, config=CONFIG)
    assert got.shape == (1, 1)
    assert got.item() == pytest.approx(total / 4, rel=1e-5)


def test_focal_loss_is_torchvisions_on_hard_targets() -> None:
    from torchvision.ops import sigmoid_focal_loss

    torch.manual_seed(0)
    logits, target = torch.randn(3, 2, 5, 5), (torch.rand(3, 1, 5, 5) > 0.5).float()
    theirs = sigmoid_focal_loss(
        logits, target.expand_as(logits), alpha=CONFIG.alpha, gamma=CONFIG.gamma
    ).mean((-2, -1))
    ours = focal_loss(logits, target, torch.ones(3, 1, 5, 5), config=CONFIG)
    torch.testing.assert_close(ours, theirs)


def test_dice_loss_by_hand() -> None:
    p = [_sigmoid(x) for x in (2.0, -1.0, 0.5, -3.0)]
    overlap = p[0] + p[2] + p[3]
    expected = 1 - (2 * overlap + 1) / (sum(p) + 3 + 1)
    assert dice_loss(LOGITS, TARGET, EVERY).item() == pytest.approx(expected, rel=1e-5)


def test_iou_by_hand_and_void() -> None:
    assert mask_iou(LOGITS, TARGET, EVERY).item() == pytest.approx(2 / 3)
    weight = torch.tensor([[[[1.0, 1.0], [1.0, 0.0]]]])
    assert mask_iou(LOGITS, TARGET, weight).item() == 1.0


def test_void_pixels_have_no_gradient() -> None:
    logits = LOGITS.clone().requires_grad_(True)
    weight = torch.tensor([[[[1.0, 0.0], [1.0, 1.0]]]])
    loss = focal_loss(logits, TARGET, weight, config=CONFIG) + dice_loss(logits, TARGET, weight)
    loss.sum().backward()
    assert logits.grad is not None
    assert logits.grad[0, 0, 0, 1] == 0
    assert (logits.grad[0, 0, 1] != 0).all()


def test_only_the_best_reading_is_back_propagated() -> None:
    """Section 3: minimum over the three; the fourth, mask 0, is not among them."""
    target = torch.zeros(1, 1, 4, 4)
    target[..., :2] = 1
    good = (target * 2 - 1) * 3
    logits = torch.cat([torch.zeros_like(good), -good, good, good * 0.1], dim=1)
    logits.requires_grad_(True)
    iou = torch.zeros(1, 4, requires_grad=True)
    loss, true = prediction_loss(
        logits,
        iou,
        target,
        torch.ones_like(target),
        config=CONFIG,
        single=torch.tensor([False]),
        multiple=torch.tensor([True]),
    )
    loss.backward()
    assert logits.grad is not None and iou.grad is not None
    touched = logits.grad.flatten(2).abs().sum(2)[0] > 0
    assert touched.tolist() == [False, False, True, False]
    assert true[0, 1:].tolist() == [0.0, 1.0, 1.0]
    # Every reading learns its own quality: MSE, averaged over the three.
    torch.testing.assert_close(iou.grad, torch.tensor([[0.0, 0.0, -2 / 3, -2 / 3]]))


def test_the_weights_are_the_papers() -> None:
    target, weight = TARGET, EVERY
    logits, iou = LOGITS.expand(1, 4, 2, 2), torch.full((1, 4), 0.25)
    loss, true = prediction_loss(
        logits,
        iou,
        target,
        weight,
        config=CONFIG,
        single=torch.tensor([True]),
        multiple=torch.tensor([False]),
    )
    expected = (
        20 * focal_loss(LOGITS, target, weight, config=CONFIG)
        + dice_loss(LOGITS, target, weight)
        + (0.25 - 2 / 3) ** 2
    )
    torch.testing.assert_close(loss, expected[0, 0])
    torch.testing.assert_close(true, torch.full((1, 4), 2 / 3))


def test_soft_target_is_the_covered_share() -> None:
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[:, :4, :2] = True
    torch.testing.assert_close(soft_target(mask, 2), torch.tensor([[[0.5, 0.0], [0.0, 0.0]]]))
