"""From prompts of a photo to masks: what the decoder takes, what it returns, regions of masks.

A prediction keeps the decoder's logits on its own grid (m x m) with the window of the photo that
they were decoded on. The logits of the photo are computed from those when they are needed: for a
13-megapixel photo they take 52 MB for each mask, the low-resolution ones of `tiny` 64 kB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from textsam.inference.photo.encoded import (
    EncodedPhoto,
    embed_phrases,
    map_logits,
    mask_to_low_res,
    phrase_tokens,
    to_mask_prompts,
    to_original_frame,
)
from textsam.inference.photo.zoom_plan import OUTSIDE, within_box
from textsam.modeling.mask_decoder import (
    BOX_END,
    BOX_START,
    FOREGROUND,
    NOT_A_POINT,
    PromptBatch,
    join_prompts,
)
from textsam.modeling.prepared_decoder import masks_of
from textsam.modeling.sam import Sam
from textsam.values.cells import label_regions
from textsam.values.geometry import Frame, Window
from textsam.values.photo import Remade
from textsam.values.prompts import Prompt


def prompt_batch(
    photo: EncodedPhoto, prompt: Prompt, low_res: NDArray[np.float32] | None
) -> PromptBatch:
    """One prompt in the model frame; `low_res` (m, m) logits take the place of the prompt's mask.

    A phrase adds its map as mask prompt, if the model makes maps and there is no other mask.
    """
    parts = photo.parts
    points = photo.frame.points_to_model(prompt.points)
    labels = prompt.labels
    if prompt.box is None:
        # A prompt without a box ends in a padding point, as in the released code.
        points = np.concatenate([points, np.zeros((1, 2), np.float32)])
        labels = np.append(labels, NOT_A_POINT)
    else:
        corners = photo.frame.boxes_to_model(prompt.box).reshape(2, 2)
        points = np.concatenate([points, corners])
        labels = np.concatenate([labels, [BOX_START, BOX_END]])
    masks: Tensor | None = None
    if low_res is not None:
        masks = torch.from_numpy(np.array(low_res, dtype=np.float32))[None, None]
    elif prompt.mask is not None:
        masks = mask_to_low_res(prompt.mask, photo.frame, parts.sam.config.mask_size)
    tokens: Tensor | None = None
    # After a phrase that boxes or ranked masks answered, a click keeps it as the label alone.
    if prompt.text is not None and parts.has_text_prompts:
        embeddings = embed_phrases(parts, [prompt.text])
        tokens = phrase_tokens(parts, embeddings)
        if masks is None and parts.has_dense_text:
            masks = to_mask_prompts(photo, map_logits(photo, embeddings))
    device = parts.device
    return PromptBatch(
        points=torch.as_tensor(points, dtype=torch.float32, device=device)[None],
        labels=torch.as_tensor(labels, dtype=torch.int64, device=device)[None],
        image_index=torch.zeros(1, dtype=torch.int64, device=device),
        masks=None if masks is None else masks.to(device),
        tokens=tokens,
    )


def point_prompts(
    photo: EncodedPhoto,
    points: Tensor,  # (P, 2) x, y in model pixels
    *,
    masks: Tensor | None = None,
    tokens: Tensor | None = None,
) -> PromptBatch:
    """P prompts of one foreground point each, padded as `prompt_batch` does."""
    count, device = len(points), photo.parts.device
    return PromptBatch(
        points=torch.stack([points, torch.zeros_like(points)], dim=1).to(device),
        labels=torch.tensor([FOREGROUND, NOT_A_POINT]).expand(count, 2).to(device),
        image_index=torch.zeros(count, dtype=torch.int64, device=device),
        masks=None if masks is None else masks.to(device),
        tokens=tokens,
    )


def box_prompts(photo: EncodedPhoto, boxes: NDArray[np.float32]) -> PromptBatch:
    """P prompts of a box each, half-open (P, 4) original pixels, as `prompt_batch` makes them."""
    count, device = len(boxes), photo.parts.device
    corners = photo.frame.boxes_to_model(boxes).reshape(count, 2, 2)
    return PromptBatch(
        points=torch.as_tensor(corners, dtype=torch.float32, device=device),
        labels=torch.tensor([BOX_START, BOX_END]).expand(count, 2).to(device),
        image_index=torch.zeros(count, dtype=torch.int64, device=device),
    )


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
        frame = replace(self.frame, height=window.y1 - window.y0, width=window.x1 - window.x0)
        full = np.full(self.frame.size, OUTSIDE, dtype=np.float32)
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

    @property
    def logits(self) -> NDArray[np.float32]:
        """(4, H, W) float32 in the original frame; a pixel is inside where they are positive."""
        return self._full_size.get(lambda: np.stack([mask.full_size() for mask in self.masks]))

    @cached_property
    def _full_size(self) -> Remade:
        # 208 MB for a photo of 13 megapixels: ten predictions would pin two gigabytes.
        return Remade()

    @cached_property
    def low_res(self) -> NDArray[np.float32]:
        """(4, m, m) float32 in the padded model frame of the whole photo."""
        return np.stack([mask.low_res() for mask in self.masks])


@torch.no_grad()
def decode(photo: EncodedPhoto, prompts: PromptBatch) -> tuple[Tensor, Tensor]:
    """Decode P prompts in the model frame: logits (P, 4, m, m) and IoU (P, 4), on the CPU."""
    sam, prepared = photo.parts.sam, photo.prepared
    if prepared is not None and isinstance(sam, Sam):
        output = sam.decode_prepared(prepared, prompts)
    else:
        output = sam.decode(photo.features, prompts)
    return output.logits.float().cpu(), output.iou.float().cpu()


@torch.no_grad()
def decode_above(
    photo: EncodedPhoto, prompts: PromptBatch, iou: float, *, masks: slice
) -> tuple[Tensor, Tensor, Tensor]:
    """Decode P prompts, and make the masks whose predicted IoU is higher than a limit.

    Args:
        photo: What is prompted.
        prompts: In the model frame.
        iou: The limit.
        masks: Which of the four masks of each prompt are wanted.

    Returns:
        Logits (N, m, m), predicted IoU (N,) and the index of the prompt (N,) of each mask, in the
        order of the prompts, on the CPU.
    """
    sam, prepared = photo.parts.sam, photo.prepared
    if prepared is None or not isinstance(sam, Sam):
        logits, predicted = (values[:, masks] for values in decode(photo, prompts))
        passing = predicted > iou
        return logits[passing], predicted[passing], torch.nonzero(passing)[:, 0]
    logits_of: list[Tensor] = []
    iou_of: list[Tensor] = []
    indices: list[Tensor] = []
    done = 0
    for part in sam.decode_in_groups(prepared, prompts):
        predicted = part.iou[:, masks]
        passing = predicted > iou
        some = passing.any(1)
        # Most of the decoder's work after the transformer is upscaling, which a rejected prompt
        # does not need.
        chosen, wanted = part[some], passing[some]
        if len(wanted):
            weights = chosen.weights[:, masks]
            logits = masks_of(sam.mask_decoder, prepared, chosen, weights)
            logits_of.append(logits[wanted].float().cpu())
            iou_of.append(predicted[passing].float().cpu())
            indices.append(torch.nonzero(passing)[:, 0].cpu() + done)
        done += len(predicted)
    if not logits_of:
        size = sam.config.mask_size
        return torch.zeros(0, size, size), torch.zeros(0), torch.zeros(0, dtype=torch.int64)
    return torch.cat(logits_of), torch.cat(iou_of), torch.cat(indices)


def decode_prompts(
    photos: Sequence[EncodedPhoto],  # of one model, for each prompt
    prompts: Sequence[Prompt],
    low_res: Sequence[NDArray[np.float32] | None],  # (m, m) logits in place of a prompt's mask
) -> list[Prediction]:
    """Decode prompts in one run, each on its photo; the logits may be of an earlier prediction."""
    distinct = {id(photo): photo for photo in photos}
    batches = [prompt_batch(*each) for each in zip(photos, prompts, low_res, strict=True)]
    predictions: dict[int, Prediction] = {}
    for key, photo in distinct.items():
        rows = [row for row, other in enumerate(photos) if id(other) == key]
        # Padding hides, so a prompt has the same masks alone and among others.
        batch = join_prompts([batches[row] for row in rows], [0] * len(rows))
        logits, iou = decode(photo, batch)
        for row, grids, scores in zip(rows, logits.numpy(), iou.numpy(), strict=True):
            masks = tuple(MaskLogits(frame=photo.frame, grids=grid[None]) for grid in grids)
            predictions[row] = Prediction(masks=masks, iou=scores)
    return [predictions[row] for row in range(len(photos))]


def stability_score(logits: Tensor, *, offset: float = 1.0) -> Tensor:
    """IoU of the masks at logits +offset and -offset (Appendix B): (K, h, w) -> (K,) float32."""
    # NumPy counts true values many times faster than torch adds them up.
    rows = logits.numpy(force=True)
    counts = np.array(
        [[np.count_nonzero(row > limit) for limit in (offset, -offset)] for row in rows], np.float32
    ).reshape(-1, 2)
    return torch.from_numpy(counts[:, 0] / counts[:, 1].clip(min=1))


def nearest_mask(masks: NDArray[np.bool_], x: float, y: float) -> int:
    """Index of the smallest of K > 0 masks (K, H, W) that contains a point, or of the nearest."""
    inside = np.flatnonzero(masks[:, int(y), int(x)])
    if len(inside):
        return int(inside[masks[inside].sum((1, 2)).argmin()])
    distances = []
    for mask in masks:
        rows, columns = np.nonzero(mask)
        square = (rows + 0.5 - y) ** 2 + (columns + 0.5 - x) ** 2
        distances.append(square.min() if len(square) else np.inf)
    return int(np.argmin(distances))


def connected_components(mask: Tensor) -> Tensor:
    """Label the 8-connected regions of (h, w) bool: (h, w) int64, 0 outside, then from 1."""
    return torch.from_numpy(label_regions(mask.cpu().numpy()))


def depth_inside(cells: Tensor) -> Tensor:
    """Distance in cells from each cell inside (h, w) bool, not empty, to the nearest one outside.

    Everything beyond the array is outside. Returns (h, w) float32, 0 outside.
    """
    columns, rows = (torch.nonzero(cells.any(axis))[:, 0] for axis in (0, 1))
    y, x = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
    inside = F.pad(cells[y, x].float(), (1, 1, 1, 1))[None, None]
    depth = torch.zeros_like(inside)
    while bool(inside.any()):
        depth += inside
        inside = -F.max_pool2d(-inside, 3, stride=1, padding=1)
    whole = torch.zeros(cells.shape)
    whole[y, x] = depth[0, 0, 1:-1, 1:-1]
    return whole


def without_small_regions(mask: NDArray[np.bool_], min_area: int) -> NDArray[np.bool_]:
    """Fill gaps, then remove pieces, of fewer than `min_area` pixels; the largest piece stays.

    A gap is an 8-connected region outside the mask, also at the photo's border, as in the released
    code. Only the mask's box is searched; around it there is one gap.
    """
    if not mask.any():
        return mask
    height, width = mask.shape
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    y0, y1, x0, x1 = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    # One row or column around the box, on the sides where the photo goes on.
    top, left = int(y0 > 0), int(x0 > 0)
    part = np.pad(mask[y0:y1, x0:x1], ((top, int(y1 < height)), (left, int(x1 < width))))
    gaps = connected_components(torch.from_numpy(~part)).numpy()
    inner = np.s_[top : top + y1 - y0, left : left + x1 - x0]
    sizes = np.bincount(gaps[inner].ravel(), minlength=int(gaps.max()) + 1)
    around = [
        ((0, 0), np.s_[:y0, :]),
        ((-1, -1), np.s_[y1:, :]),
        ((top, 0), np.s_[y0:y1, :x0]),
        ((top, -1), np.s_[y0:y1, x1:]),
    ]
    result = mask.copy()
    bands = [(int(gaps[place]), result[band]) for place, band in around if result[band].size]
    for gap, band in bands:
        sizes[gap] += band.size
    small = np.flatnonzero(sizes < min_area)
    result[y0:y1, x0:x1] |= np.isin(gaps[inner], small[small > 0])
    for gap, band in bands:  # they are views of the result
        band |= gap in small
    return _without_small_pieces(result, min_area)


def _without_small_pieces(mask: NDArray[np.bool_], min_area: int) -> NDArray[np.bool_]:
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    pieces = connected_components(torch.from_numpy(np.ascontiguousarray(mask[box]))).numpy()
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    large = np.flatnonzero(sizes >= min_area)
    mask[box] &= np.isin(pieces, large if len(large) else [int(sizes.argmax())])
    return mask
