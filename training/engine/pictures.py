"""Pictures of a run: prediction and truth on the same few photos at every evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from textsam.modeling.mask_decoder import BOX_END, BOX_START, PromptBatch
from textsam.modeling.sam import Sam
from textsam.pictures.draw import PALETTE, encode_picture, overlay
from textsam.values.files import write_atomically
from textsam.values.rle import encode_mask, rle_boxes

from ..data import View

_PREDICTION, _TRUTH = PALETTE[1], PALETTE[2]  # vermilion and mint, as in evaluation.sheet
_PAPER = (255, 255, 255)
_GAP = 8  # pixels between two photos

Predict = Callable[[nn.Module, "View"], Tensor]


class PictureSheet:
    """An evaluation that draws fixed views on one page: `Trainer(..., evaluate=PictureSheet(...))`.

    Predictions are tinted and outlined in vermilion with their IoU, the truth is outlined in mint.
    """

    def __init__(
        self,
        views: Sequence[View],
        predict: Callable[[nn.Module, View], Tensor] | None = None,
        *,
        columns: int = 4,
        size: int = 300,
        name: str = "views",
    ) -> None:
        if not views or any(len(view.masks) == 0 for view in views):
            raise ValueError(f"PictureSheet: got {len(views)} views; wanted some, each with masks")
        self.views = list(views)
        self.predict = masks_from_boxes if predict is None else predict
        self.columns, self.size, self.name = columns, size, name

    def __call__(self, module: nn.Module, step: int, folder: Path) -> dict[str, float]:
        """Write `{name}.png` into a folder; returns the mean IoU of the masks."""
        cells: list[Image.Image] = []
        ious: list[float] = []
        for view in self.views:
            predicted = self.predict(module, view).cpu()
            union = (predicted | view.masks).flatten(1).sum(1)
            iou = (predicted & view.masks).flatten(1).sum(1) / union.clamp(min=1)
            ious.extend(iou.tolist())
            cells.append(self._cell(view, predicted, iou.tolist()))
        write_atomically(folder / f"{self.name}.png", encode_picture(self._page(cells), ".png"))
        return {f"{self.name}_iou": sum(ious) / len(ious)}

    def _cell(self, view: View, predicted: Tensor, ious: Sequence[float]) -> Image.Image:
        photo = np.ascontiguousarray(view.pixels.permute(1, 2, 0).numpy())
        height, width = photo.shape[:2]
        truth, guess = (
            [encode_mask(mask[:height, :width].numpy()) for mask in masks]
            for masks in (view.masks, predicted)
        )
        texts = [f"{iou:.2f}" for iou in ious]
        picture = overlay(photo, guess, colors=[_PREDICTION] * len(guess), texts=texts, dim=0)
        colors = [_TRUTH] * len(truth)
        picture = overlay(np.asarray(picture), truth, colors=colors, alpha=0, dim=0)
        scale = self.size / max(picture.size)
        wanted = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        return picture.resize(wanted, Image.Resampling.LANCZOS)

    def _page(self, cells: Sequence[Image.Image]) -> Image.Image:
        step = self.size + _GAP
        columns = min(self.columns, len(cells))
        rows = math.ceil(len(cells) / columns)
        page = Image.new("RGB", (columns * step + _GAP, rows * step + _GAP), _PAPER)
        for index, cell in enumerate(cells):
            row, column = divmod(index, columns)
            page.paste(cell, (_GAP + column * step, _GAP + row * step))
        return page


def masks_from_boxes(module: nn.Module, view: View) -> Tensor:
    """Mask 0 for the true box of each mask: (M, S, S) bool."""
    sam = next((part for part in module.modules() if isinstance(part, Sam)), None)
    if sam is None:
        raise ValueError(
            f"{type(module).__name__} holds no Sam; give PictureSheet a `predict` of its own"
        )
    device = sam.pixel_mean.device
    boxes = rle_boxes([encode_mask(mask.numpy()) for mask in view.masks])
    count = len(boxes)
    prompts = PromptBatch(
        points=torch.as_tensor(np.asarray(boxes), dtype=torch.float32).view(count, 2, 2).to(device),
        labels=torch.tensor([BOX_START, BOX_END], device=device).expand(count, 2),
        image_index=torch.zeros(count, dtype=torch.int64, device=device),
    )
    features = sam.encode_image(sam.preprocess([view.pixels.to(device)]))
    logits = sam.decode(features, prompts).single().logits
    return sam.to_model_frame(logits)[:, 0] > 0
