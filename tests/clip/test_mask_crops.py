"""Batches across photos hold what `square_crops` cuts, in order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from textsam.clip.mask_crops import crop_batches, square_crops
from textsam.errors import PromptError
from textsam.values.rle import encode_mask


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
def test_batches_are_full_and_in_order(batch: int) -> None:
    rng = np.random.default_rng(0)
    photos = []
    for count in (2, 0, 3):
        image = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
        masks = rng.random((count, 20, 30)) < 0.1
        photos.append((image, [encode_mask(mask) for mask in masks]))
    found = list(crop_batches(photos, size=16, expand=1.5, fill=(1, 2, 3), batch=batch))
    assert [len(crops) for crops, _ in found[:-1]] == [batch] * (len(found) - 1)
    want = [
        square_crops(image, rles, size=16, expand=1.5, fill=(1, 2, 3))
        for image, rles in photos
        if rles
    ]
    for place in (0, 1):
        got = torch.cat([each[place] for each in found])
        torch.testing.assert_close(got, torch.cat([each[place] for each in want]))


def test_no_masks_are_no_batch() -> None:
    assert list(crop_batches([], size=16, expand=1.0, batch=2)) == []


def test_an_empty_mask_is_refused() -> None:
    image = np.zeros((20, 30, 3), np.uint8)
    with pytest.raises(PromptError, match="is empty"):
        list(
            crop_batches(
                [(image, [encode_mask(np.zeros((20, 30), bool))])], size=16, expand=1.0, batch=2
            )
        )
