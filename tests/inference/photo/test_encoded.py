"""Masks and maps find their way between a photo and frames that pad or stretch it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from textsam.inference.photo.encoded import mask_to_low_res, to_mask_prompts, to_original_frame
from textsam.inference.photo.prediction import MaskLogits
from textsam.values.geometry import Frame, Window

SIZES = [(60, 180), (200, 80), (96, 96)]


def disc(size: tuple[int, int], *, x: float = 0.6, y: float = 0.4) -> np.ndarray:
    """(H, W) bool: an ellipse at shares of the sides, a third of them wide."""
    rows = (np.arange(size[0])[:, None] + 0.5) / size[0] - y
    columns = (np.arange(size[1]) + 0.5) / size[1] - x
    return np.asarray(rows**2 + columns**2 < 0.03)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize("stretched", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_a_mask_goes_to_the_grid_and_back(size: tuple[int, int], stretched: bool) -> None:
    frame = Frame(height=size[0], width=size[1], image_size=128, stretched=stretched)
    mask = disc(size)
    small = mask_to_low_res(mask, frame, 64)
    assert small.shape == (1, 1, 64, 64)
    back = (to_original_frame(small[0], frame)[0] > 0).numpy()
    assert iou(back, mask) > 0.85
    # Where the mask lies in the square is where its middle goes.
    ys, xs = np.nonzero(small[0, 0].numpy() > 0)
    centre = frame.points_to_model(np.array([[0.6 * size[1], 0.4 * size[0]]])) / 2
    np.testing.assert_allclose([xs.mean() + 0.5, ys.mean() + 0.5], centre[0], atol=1.0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ours", [False, True])
@pytest.mark.parametrize("theirs", [False, True])
def test_maps_of_one_frame_are_prompts_of_another(
    size: tuple[int, int], ours: bool, theirs: bool
) -> None:
    frames = [
        Frame(height=size[0], width=size[1], image_size=side, stretched=stretched)
        for side, stretched in ((128, ours), (96, theirs))
    ]
    photo: Any = SimpleNamespace(
        frame=frames[0],
        text_frame=frames[1],
        features=SimpleNamespace(embedding=torch.zeros(1, 8, 16, 16)),
    )
    mask = disc(size)
    prompts = to_mask_prompts(photo, mask_to_low_res(mask, frames[1], 48)[0])
    assert prompts.shape == (1, 1, 64, 64)
    assert iou((to_original_frame(prompts[0], frames[0])[0] > 0).numpy(), mask) > 0.8
    assert torch.equal(prompts, to_mask_prompts(photo, mask_to_low_res(mask, frames[1], 48)[0]))
    rows, columns = frames[0].covered(64)
    assert (prompts[0, 0, rows + 1 :] < 0).all() and (prompts[0, 0, :, columns + 1 :] < 0).all()


@pytest.mark.parametrize("stretched", [False, True])
def test_a_window_s_grid_lands_in_the_window(stretched: bool) -> None:
    frame = Frame(height=60, width=180, image_size=128, stretched=stretched)
    window = Window(40, 10, 100, 50)
    inner = Frame(height=40, width=60, image_size=128, stretched=stretched)
    mask = disc((40, 60))
    grids = mask_to_low_res(mask, inner, 64)[0].numpy()
    logits = MaskLogits(frame=frame, grids=grids, windows=(window,))
    whole = np.zeros((60, 180), np.bool_)
    whole[window.slices] = mask
    assert iou(logits.full_size() > 0, whole) > 0.85
    again = MaskLogits(frame=frame, grids=logits.low_res()[None])
    assert iou(again.full_size() > 0, whole) > 0.7


@pytest.mark.parametrize("side", [60, 64, 62], ids=["whole", "even", "odd"])
@pytest.mark.parametrize("size", [(48, 64), (13, 99), (300, 3), (64, 64), (1, 1)])
def test_rows_of_padding_need_no_upscaling(size: tuple[int, int], side: int) -> None:
    frame = Frame(height=size[0], width=size[1], image_size=side)
    logits = torch.randn(3, 15, 15)
    height, width = frame.resized
    whole = F.interpolate(logits[None], (side, side), mode="bilinear", align_corners=False)
    cut = whole[..., :height, :width]
    expected = F.interpolate(cut, frame.size, mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(to_original_frame(logits, frame), expected, atol=0, rtol=0)
