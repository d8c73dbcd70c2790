"""From prompts in original pixels to the prompts that the decoder takes."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textsam.inference.photo.encoded import EncodedPhoto
from textsam.inference.photo.phrase_map import embed_phrases, phrase_mask_prompt, phrase_tokens
from textsam.inference.photo.postprocess import mask_to_low_res
from textsam.modeling.mask_decoder import (
    BOX_END,
    BOX_START,
    FOREGROUND,
    NOT_A_POINT,
    PromptBatch,
)
from textsam.values.prompts import Prompt

__all__ = ["box_prompts", "point_prompts", "prompt_batch"]


def prompt_batch(
    photo: EncodedPhoto, prompt: Prompt, low_res: NDArray[np.float32] | None
) -> PromptBatch:
    """One prompt in the model frame.

    Args:
        photo: The photo. A phrase adds its map as mask prompt, if the model makes maps and there is
            no other mask.
        prompt: Original pixels.
        low_res: (m, m) logits of an earlier prediction, in place of the prompt's mask.
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
    if prompt.text is not None:
        embeddings = embed_phrases(parts, [prompt.text])
        tokens = phrase_tokens(parts, embeddings)
        if masks is None and parts.has_dense_text:
            masks = phrase_mask_prompt(photo, embeddings)
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


def box_prompts(
    photo: EncodedPhoto, boxes: NDArray[np.float32], *, low_res: Tensor | None = None
) -> PromptBatch:
    """P prompts of one box each, as `prompt_batch` makes of a box.

    Args:
        photo: The photo.
        boxes: (P, 4) half-open x0, y0, x1, y1, original pixels.
        low_res: (P, 1, m, m) logits of an earlier prediction for each box, to be refined.
    """
    count, device = len(boxes), photo.parts.device
    corners = photo.frame.boxes_to_model(boxes).reshape(count, 2, 2)
    return PromptBatch(
        points=torch.as_tensor(corners, dtype=torch.float32, device=device),
        labels=torch.tensor([BOX_START, BOX_END]).expand(count, 2).to(device),
        image_index=torch.zeros(count, dtype=torch.int64, device=device),
        masks=None if low_res is None else low_res.to(device),
    )
