"""Crops of a batch: the paper's choices, drawn per photo, fresh or from fixed variants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from textsam.clip.mask_crops import square_crops
from training.objectives.crops import (
    CropConfig,
    choose_crops,
    cut_crops,
    min_crop_area,
    variant_options,
)


def test_the_papers_smallest_mask_scales_with_the_frame() -> None:
    assert min_crop_area(1024) == 100**2
    assert min_crop_area(512) == 50**2
    assert min_crop_area(64) == 39  # (6.25)^2


def test_fresh_choices_are_the_papers(make_batch: Callable[..., Any]) -> None:
    options = choose_crops(make_batch((40,) * 25), config=CropConfig())
    assert options.variant is None
    assert 1 <= options.expand.min() < 1.01 and 1.99 < options.expand.max() <= 2
    assert options.expand.mean() == pytest.approx(1.5, abs=0.03)
    assert options.zero_outside.mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("variants", [None, 3])
def test_choices_belong_to_the_photo(variants: int | None, make_batch: Callable[..., Any]) -> None:
    config = CropConfig(variants=variants)
    whole = choose_crops(make_batch((2, 1, 3)), config=config)
    last = choose_crops(make_batch((3,), first=2), config=config)
    np.testing.assert_array_equal(whole.expand[3:], last.expand)
    np.testing.assert_array_equal(whole.zero_outside[3:], last.zero_outside)
    other = choose_crops(make_batch((2, 1, 3), step=1), config=config)
    assert (whole.expand != other.expand).any()


def test_variants_are_few_and_their_choice_is_even(make_batch: Callable[..., Any]) -> None:
    config = CropConfig(variants=3)
    seen = []
    for step in range(300):
        options = choose_crops(make_batch((1,), step=step), config=config)
        expand, zeroed = variant_options("drawn", 0, 0, config=config)
        assert options.variant is not None
        v = int(options.variant[0])
        assert options.expand[0] == expand[v] and options.zero_outside[0] == zeroed[v]
        seen.append(v)
    counts = np.bincount(seen) / 300
    assert len(counts) == 3 and np.abs(counts - 1 / 3).max() < 0.09
    keys = [("drawn", 0, 1), ("drawn", 1, 0), ("other", 0, 0)]
    assert all((variant_options(*key, config=config)[0] != expand).all() for key in keys)
    with pytest.raises(ValueError, match="variants is None"):
        variant_options("drawn", 0, 0, config=CropConfig())
    with pytest.raises(ValueError, match="variants is 0"):
        CropConfig(variants=0)


def test_only_the_chosen_masks_are_cut_and_padding_is_not(make_batch: Callable[..., Any]) -> None:
    batch = make_batch((2, 1, 3))
    options = choose_crops(batch, config=CropConfig())
    chosen = np.array([False, True, False, True, False, True])
    crops, shares = cut_crops(batch.views, options, size=32, chosen=chosen)
    assert crops.shape == (3, 3, 32, 32) and crops.dtype == torch.uint8
    view = batch.views[2]
    expected, inside = square_crops(
        view.pixels.permute(1, 2, 0).numpy(),
        view.masks[2, :48],
        size=32,
        expand=options.expand[5],
        zero_outside=bool(options.zero_outside[5]),
    )
    assert torch.equal(crops[2], expected[0]) and torch.equal(shares[2], inside[0])
    nothing, none = cut_crops(batch.views, options, size=32, chosen=np.zeros(6, bool))
    assert nothing.shape == (0, 3, 32, 32) and none.shape == (0, 32, 32)
