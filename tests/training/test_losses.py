"""Losses against references written out number by number."""

from __future__ import annotations

import math

import pytest
import torch

from training.losses import (
    FOCAL_PAPER_ALPHA,
    LossConfig,
    dice_loss,
    focal_loss,
    mask_iou,
    mask_losses,
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
    losses, true = mask_losses(
        logits,
        iou,
        target,
        torch.ones_like(target),
        config=CONFIG,
        single=torch.tensor([False]),
    )
    losses.sum().backward()
    assert logits.grad is not None and iou.grad is not None
    touched = logits.grad.flatten(2).abs().sum(2)[0] > 0
    assert touched.tolist() == [False, False, True, False]
    assert true[0, 1:].tolist() == [0.0, 1.0, 1.0]
    # Every reading learns its own quality: MSE, averaged over the three.
    torch.testing.assert_close(iou.grad, torch.tensor([[0.0, 0.0, -2 / 3, -2 / 3]]))


def test_the_weights_are_the_papers() -> None:
    target, weight = TARGET, EVERY
    logits, iou = LOGITS.expand(1, 4, 2, 2), torch.full((1, 4), 0.25)
    losses, true = mask_losses(
        logits,
        iou,
        target,
        weight,
        config=CONFIG,
        single=torch.tensor([True]),
    )
    expected = (
        20 * focal_loss(LOGITS, target, weight, config=CONFIG)
        + dice_loss(LOGITS, target, weight)
        + (0.25 - 2 / 3) ** 2
    )
    torch.testing.assert_close(losses[0], expected[0, 0])
    torch.testing.assert_close(true, torch.full((1, 4), 2 / 3))


def test_soft_target_is_the_covered_share() -> None:
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[:, :4, :2] = True
    torch.testing.assert_close(soft_target(mask, 2), torch.tensor([[[0.5, 0.0], [0.0, 0.0]]]))


# Losses mask by mask, against a reference in plain Python.


def _written_out(
    logits: torch.Tensor,
    iou: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor,
    *,
    config: LossConfig,
) -> list[tuple[float, float, float]]:
    """20 focal + dice, squared error of the IoU, and the IoU, of each output of ONE mask."""
    values = []
    for output, said in zip(logits.tolist(), iou.tolist(), strict=True):
        focal = overlap = p_sum = y_sum = weights = 0.0
        both = either = 0
        for xs, ys, ws in zip(output, target[0].tolist(), weight[0].tolist(), strict=True):
            for x, y, w in zip(xs, ys, ws, strict=True):
                p = _sigmoid(x)
                entropy = -(y * math.log(p) + (1 - y) * math.log(1 - p))
                share = config.alpha * y + (1 - config.alpha) * (1 - y)
                focal += w * share * abs(y - p) ** config.gamma * entropy
                overlap += w * w * p * y
                p_sum, y_sum, weights = p_sum + w * p, y_sum + w * y, weights + w
                both += w > 0 and x > 0 and y > 0.5
                either += w > 0 and (x > 0 or y > 0.5)
        dice = 1 - (2 * overlap + 1) / (p_sum + y_sum + 1)
        true = both / max(either, 1)
        loss = config.focal * focal / max(weights, 1) + config.dice * dice
        values.append((loss, config.iou * (said - true) ** 2, true))
    return values


@pytest.mark.parametrize("alpha", [CONFIG.alpha, FOCAL_PAPER_ALPHA])
def test_losses_of_each_mask_are_the_written_out_ones(alpha: float) -> None:
    config = LossConfig(alpha=alpha)
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(6, 4, 3, 5, generator=generator) * 2
    iou = torch.rand(6, 4, generator=generator)
    target = torch.rand(6, 1, 3, 5, generator=generator)
    weight = (torch.rand(6, 1, 3, 5, generator=generator) > 0.2).float()
    single = torch.tensor([True, False, True, False, True, False])
    multiple = torch.tensor([False, True, True, True, False, True])
    got = mask_losses(logits, iou, target, weight, config=config, single=single, multiple=multiple)
    for i in range(6):
        values = _written_out(logits[i], iou[i], target[i], weight[i], config=config)
        one = values[0][0] + values[0][1]
        best = min(loss for loss, _, _ in values[1:])
        three = best + sum(square for _, square, _ in values[1:]) / 3
        chosen = [v for v, used in ((one, single[i]), (three, multiple[i])) if used]
        assert got.loss[i].item() == pytest.approx(sum(chosen) / len(chosen), rel=1e-4)
        assert got.true_iou[i].tolist() == pytest.approx([true for _, _, true in values])


def test_the_papers_ratio_is_twenty_to_one() -> None:
    assert (CONFIG.focal, CONFIG.dice, CONFIG.iou) == (20.0, 1.0, 1.0)
    assert FOCAL_PAPER_ALPHA == 0.25 and CONFIG.gamma == 2.0


def test_the_mean_is_linear_in_masks() -> None:
    """What lets ranks be weighted by their number of masks; neither part may know the other."""
    torch.manual_seed(1)
    logits, iou = torch.randn(5, 4, 4, 4), torch.rand(5, 4)
    target, weight = torch.rand(5, 1, 4, 4), torch.ones(5, 1, 4, 4)
    single = torch.tensor([True, False, False, True, False])

    def mean(rows: slice) -> torch.Tensor:
        parts = (x[rows] for x in (logits, iou, target, weight))
        return mask_losses(*parts, config=CONFIG, single=single[rows]).loss.mean()

    whole = mean(slice(None))
    torch.testing.assert_close(whole, (2 * mean(slice(0, 2)) + 3 * mean(slice(2, 5))) / 5)


def test_gradient_flows_to_the_output_that_is_trained_only() -> None:
    target = torch.zeros(3, 1, 4, 4)
    target[..., :2] = 1
    good = (target * 2 - 1) * 3
    logits = torch.cat([-good, good * 0.1, -good, good], dim=1)
    logits[:, :, 3, 3] = 9.0  # void: wrong, and it does not matter
    logits.requires_grad_(True)
    iou = torch.zeros(3, 4, requires_grad=True)
    weight = torch.ones_like(target)
    weight[..., 3, 3] = 0
    single, multiple = torch.tensor([True, False, True]), torch.tensor([False, True, True])
    made = mask_losses(logits, iou, target, weight, config=CONFIG, single=single, multiple=multiple)
    made.loss.sum().backward()
    assert logits.grad is not None and iou.grad is not None
    touched = logits.grad.flatten(2).abs().sum(2) > 0
    assert touched.tolist() == [
        [True, False, False, False],
        [False, False, False, True],
        [True, False, False, True],
    ]
    assert (logits.grad[..., 3, 3] == 0).all()
    assert made.true_iou[0].tolist() == [0.0, 1.0, 0.0, 1.0]
    # d/d iou of the mean square (0 - true)^2 over the outputs that are in use.
    expected = torch.tensor([[0, 0, 0, 0], [0, -2 / 3, 0, -2 / 3], [0, -1 / 3, 0, -1 / 3]])
    torch.testing.assert_close(iou.grad, expected)


def test_a_mask_without_pixels_that_count_has_no_mask_loss() -> None:
    weight = torch.zeros(1, 1, 2, 2)
    logits, iou = LOGITS.expand(1, 4, 2, 2), torch.full((1, 4), 0.5)
    made = mask_losses(logits, iou, TARGET, weight, config=CONFIG, single=torch.tensor([True]))
    assert made.loss.item() == pytest.approx(0.25)  # (0.5 - 0)^2
