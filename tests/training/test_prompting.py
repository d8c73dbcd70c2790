"""The prompt simulation does what Appendix A says, for every mask of a batch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from textsam.modeling.prompt_encoder import BOX_END, BOX_START, FOREGROUND, NOT_A_POINT
from training.prompting import (
    PromptConfig,
    add_error_points,
    box_prompts,
    first_prompts,
    sample_pixels,
)

CONFIG = PromptConfig()


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _masks() -> torch.Tensor:
    masks = torch.zeros(3, 64, 64, dtype=torch.bool)
    masks[0, 10:20, 30:50] = True
    masks[1, 63, 63] = True
    masks[2] = True
    return masks


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_points_lie_in_the_mask(seed: int) -> None:
    masks = _masks()
    x, y = sample_pixels(masks, _generator(seed)).long().unbind(1)
    assert masks[torch.arange(3), y, x].all()


def test_points_are_uniform_in_the_mask() -> None:
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[0, 2, 3] = mask[0, 5, 1:4] = True
    points = sample_pixels(mask.expand(4000, -1, -1), _generator())
    keys, counts = (points[:, 1] * 8 + points[:, 0]).unique(return_counts=True)
    assert keys.tolist() == [19, 41, 42, 43]
    assert (counts / 4000 - 0.25).abs().max() < 0.03


def test_boxes_have_the_papers_noise() -> None:
    masks = torch.zeros(4000, 64, 64, dtype=torch.bool)
    masks[:, 16:32, 20:40] = True
    corners, labels = box_prompts(masks, _generator(), config=PromptConfig(box_noise_limit=1.0))
    assert labels[0].tolist() == [BOX_START, BOX_END]
    flat = corners.flatten(1)
    torch.testing.assert_close(
        flat.mean(0), torch.tensor([20.0, 16.0, 40.0, 32.0]), atol=0.15, rtol=0
    )
    # 10% of the side: 20 wide, 16 high.
    torch.testing.assert_close(flat.std(0), torch.tensor([2.0, 1.6, 2.0, 1.6]), atol=0.12, rtol=0)
    limited, _ = box_prompts(masks, _generator(), config=CONFIG)
    assert (limited.flatten(1) - flat.mean(0).round()).abs().max() <= 20 / 1024 * 64 + 1e-4


def test_boxes_stay_in_the_frame() -> None:
    corners, _ = box_prompts(_masks()[2:].expand(200, -1, -1), _generator(), config=CONFIG)
    assert corners.min() >= 0 and corners.max() <= 64


def test_first_prompts_are_points_or_boxes_by_half() -> None:
    masks = _masks()[:1].expand(2000, -1, -1)
    prompts = first_prompts(
        masks, torch.zeros(2000, dtype=torch.int64), _generator(), config=CONFIG
    )
    boxed = prompts.labels[:, 0] == BOX_START
    assert boxed.float().mean().item() == pytest.approx(0.5, abs=0.04)
    assert (prompts.labels[~boxed] == torch.tensor([FOREGROUND, NOT_A_POINT])).all()
    assert (prompts.labels[boxed] == torch.tensor([BOX_START, BOX_END])).all()


def test_error_points_are_in_the_error_and_labelled_by_its_kind() -> None:
    masks = torch.zeros(4, 16, 16, dtype=torch.bool)
    masks[:, 4:12, 4:12] = True
    predicted = masks.clone()
    predicted[0, 4:12, 4:8] = False  # missing: foreground
    predicted[1, 0:4, 0:16] = True  # too much: background
    predicted[3, 0:4, 0:16] = True  # too much, but void
    ignore = torch.zeros_like(masks)
    ignore[3, 0:4] = True
    start = first_prompts(masks, torch.zeros(4, dtype=torch.int64), _generator(), config=CONFIG)
    logits = torch.randn(4, 1, 4, 4, requires_grad=True)
    for seed in range(20):
        prompts = add_error_points(start, predicted, logits, masks, _generator(seed), ignore=ignore)
        x, y = prompts.points[:, -1].long().unbind(1)
        assert prompts.labels[:, -1].tolist() == [1, 0, 1, 1]
        error = predicted ^ masks
        assert error[0, y[0], x[0]] and error[1, y[1], x[1]]
        assert masks[2, y[2], x[2]] and masks[3, y[3], x[3]]
    assert prompts.masks is not None
    assert torch.equal(prompts.masks, logits) and not prompts.masks.requires_grad
    assert prompts.points.shape == (4, 3, 2)


def test_the_same_seed_gives_the_same_prompts() -> None:
    a, b = (
        first_prompts(_masks(), torch.arange(3), _generator(4), config=CONFIG) for _ in range(2)
    )
    assert torch.equal(a.points, b.points) and torch.equal(a.labels, b.labels)
