"""Running the decoder, and its predictions at low resolution and at the photo's own.

A prediction keeps the decoder's logits on its own grid (m x m) with the window of the photo that
they were decoded on. The logits of the photo are computed from those when they are needed: for a
13-megapixel photo they take 52 MB for each mask, the low-resolution ones of `tiny` 64 kB.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textsam.inference.photo.encoded import EncodedPhoto
from textsam.inference.photo.postprocess import mask_to_low_res, to_original_frame
from textsam.inference.photo.prompt_batch import prompt_batch
from textsam.modeling.mask_decoder import PromptBatch
from textsam.values.geometry import Frame, Window
from textsam.values.prompts import Prompt

__all__ = ["MaskLogits", "Prediction", "decode", "decode_prompt", "within_box"]

# Logits outside a window or a box: the decoder is never surer that a pixel is outside.
_OUTSIDE = -10.0


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskLogits:
    """Logits of one mask, on the decoder's grid."""

    frame: Frame  # of the photo
    # (n, m, m) float32. One; or several that are blended, in the frames of their windows.
    grids: NDArray[np.float32]
    # The window of the photo that each was decoded on; None for the whole photo.
    windows: tuple[Window | None, ...] = (None,)
    weights: NDArray[np.float32] | None = None  # (n,) float32 of the blend; None for a single one
    # x0, y0, x1, y1 beyond which the mask is cut off, original pixels; None for no limit.
    box: NDArray[np.float32] | None = None
    # How far the mask may reach beyond the box, as a share of the box's side.
    box_margin: float = 0.0

    def full_size(self) -> NDArray[np.float32]:
        """(H, W) float32 in the original frame; a pixel is inside where they are positive."""
        logits = self._without_limit()
        if self.box is None:
            return logits
        return within_box(logits, self.box, margin=self.box_margin)

    def low_res(self) -> NDArray[np.float32]:
        """(m, m) float32 in the padded model frame of the whole photo, a mask prompt."""
        size = self.grids.shape[-1]
        if self.windows == (None,):
            logits: NDArray[np.float32] = self.grids[0]
        else:
            logits = mask_to_low_res(self._without_limit(), self.frame, size)[0, 0].numpy()
        if self.box is None:
            return logits
        cells = self.frame.boxes_to_model(self.box) * (size / self.frame.image_size)
        cells = cells.reshape(4).astype(np.float32)
        return within_box(logits, cells, margin=self.box_margin)

    def compact(self) -> MaskLogits:
        """The same with its own copy of the grids, so that it keeps no larger array alive."""
        return replace(self, grids=self.grids.copy())

    def _without_limit(self) -> NDArray[np.float32]:
        layers = [self._layer(*pair) for pair in zip(self.grids, self.windows, strict=True)]
        if self.weights is None:
            return layers[0]
        blended: NDArray[np.float32] = np.tensordot(self.weights, np.stack(layers), axes=1)
        return blended

    def _layer(self, grid: NDArray[np.float32], window: Window | None) -> NDArray[np.float32]:
        """One grid at the photo's size, (H, W)."""
        if window is None:
            return to_original_frame(torch.from_numpy(grid)[None], self.frame)[0].numpy()
        frame = Frame(
            height=window.y1 - window.y0,
            width=window.x1 - window.x0,
            image_size=self.frame.image_size,
        )
        full = np.full(self.frame.size, _OUTSIDE, dtype=np.float32)
        full[window.slices] = to_original_frame(torch.from_numpy(grid)[None], frame)[0].numpy()
        return full


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """The decoder's output for one prompt.

    Attributes:
        masks: Four: index 0 is the mask for unambiguous prompts, 1 to 3 are the readings of an
            ambiguous one. Pass the prediction on as `previous` to have one of them corrected.
        iou: (4,) float32 predicted IoU.
    """

    masks: tuple[MaskLogits, ...]
    iou: NDArray[np.float32]

    @cached_property
    def logits(self) -> NDArray[np.float32]:
        """(4, H, W) float32 in the original frame; a pixel is inside where they are positive."""
        return np.stack([mask.full_size() for mask in self.masks])

    @cached_property
    def low_res(self) -> NDArray[np.float32]:
        """(4, m, m) float32 in the padded model frame of the whole photo."""
        return np.stack([mask.low_res() for mask in self.masks])


@torch.no_grad()
def decode(photo: EncodedPhoto, prompts: PromptBatch) -> tuple[Tensor, Tensor]:
    """Decode P prompts in the model frame: logits (P, 4, m, m) and IoU (P, 4), on the CPU."""
    output = photo.parts.sam.decode(photo.features, prompts)
    return output.logits.float().cpu(), output.iou.float().cpu()


def decode_prompt(
    photo: EncodedPhoto, prompt: Prompt, low_res: NDArray[np.float32] | None = None
) -> Prediction:
    """Decode one prompt on the whole photo.

    Args:
        photo: The photo.
        prompt: Original pixels.
        low_res: (m, m) logits of an earlier prediction, as mask prompt.
    """
    logits, iou = decode(photo, prompt_batch(photo, prompt, low_res))
    masks = tuple(MaskLogits(frame=photo.frame, grids=grid[None]) for grid in logits[0].numpy())
    return Prediction(masks=masks, iou=iou[0].numpy())


def within_box(
    logits: NDArray[np.float32], box: NDArray[np.float32], *, margin: float
) -> NDArray[np.float32]:
    """Logits (..., H, W) that are negative beyond a box (x0, y0, x1, y1) and its margin."""
    height, width = logits.shape[-2:]
    x0, y0, x1, y1 = (float(side) for side in box)
    across, down = margin * (x1 - x0), margin * (y1 - y0)
    rows = np.arange(height)[:, None] + 0.5
    columns = np.arange(width)[None, :] + 0.5
    inside = (rows > y0 - down) & (rows < y1 + down) & (columns > x0 - across)
    inside &= columns < x1 + across
    return np.where(inside, logits, np.minimum(logits, _OUTSIDE)).astype(np.float32)
