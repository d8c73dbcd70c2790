"""The sheet of fixed views."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from textsam.modeling.config import SamConfig, TimmConfig
from textsam.modeling.sam import Sam
from textsam.pictures.draw import PALETTE
from training.data import View
from training.engine.pictures import PictureSheet, masks_from_boxes

SIDE = 64


def view_of(seed: int, height: int = 48) -> View:
    generator = torch.Generator().manual_seed(seed)
    masks = torch.zeros(2, SIDE, SIDE, dtype=torch.bool)
    masks[0, 8:30, 10:40] = True
    masks[1, 34:44, 2:20] = True
    return View(
        pixels=torch.randint(0, 256, (3, height, SIDE), generator=generator).to(torch.uint8),
        masks=masks,
        void=torch.zeros(SIDE, SIDE, dtype=torch.bool),
        objects=(0, 1),
        flipped=False,
    )


def test_the_sheet_shows_prediction_and_truth(tmp_path: Path) -> None:
    def half(module: nn.Module, view: View) -> torch.Tensor:
        guess = view.masks.clone()
        guess[0, :, 25:] = False  # half of the first mask
        return guess

    views = [view_of(seed) for seed in range(5)]
    sheet = PictureSheet(views, half, columns=3, size=200, name="fixed")
    figures = sheet(nn.Identity(), 7, tmp_path)
    assert figures == {"fixed_iou": pytest.approx(0.75)}
    page = np.asarray(Image.open(tmp_path / "fixed.png"))
    assert page.shape == (2 * 208 + 8, 3 * 208 + 8, 3)
    for color in (PALETTE[1], PALETTE[2]):
        distance = np.abs(page.astype(int) - np.array(color)).sum(-1)
        assert (distance < 30).sum() > 50, color


def test_the_ready_made_prediction_asks_a_sam_by_boxes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sam = Sam(
        SamConfig(encoder=TimmConfig(name="resnet18"), image_size=SIDE, embed_dim=32, iou_hidden=16)
    ).eval()
    holder = nn.ModuleDict({"sam": sam})
    masks = masks_from_boxes(holder, view_of(0))
    assert (masks.shape, masks.dtype) == ((2, SIDE, SIDE), torch.bool)
    with torch.no_grad():
        figures = PictureSheet([view_of(0)])(holder, 1, tmp_path)
    assert 0 <= figures["views_iou"] <= 1
    with pytest.raises(ValueError, match="Identity holds no Sam"):
        masks_from_boxes(nn.Identity(), view_of(0))


def test_views_without_masks_are_refused() -> None:
    with pytest.raises(ValueError, match="got 0 views"):
        PictureSheet([])
