"""A prompt in original pixels as the decoder takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textsam.inference.photo import phrase_map as language
from textsam.inference.photo.postprocess import mask_to_low_res
from textsam.modeling.prompt_encoder import BOX_END, BOX_START, NOT_A_POINT, PromptBatch
from textsam.values.prompts import Prompt

if TYPE_CHECKING:
    from textsam.inference.photo.encoded import EncodedPhoto

__all__ = ["box_prompts", "prompt_batch"]


def prompt_batch(
    view: EncodedPhoto, prompt: Prompt, low_res: NDArray[np.float32] | None
) -> PromptBatch:
    """One prompt in the model frame; without a box it ends in `not_a_point` (code).

    Args:
        view: The photo; a phrase brings its map, if the model has one and there is no other mask.
        prompt: Original pixels.
        low_res: (m, m) logits of an earlier answer, in place of the prompt's mask.
    """
    device = view.model.device
    points = view.frame.points_to_model(prompt.points)
    labels = prompt.labels
    if prompt.box is None:
        points = np.concatenate([points, np.zeros((1, 2), np.float32)])
        labels = np.append(labels, NOT_A_POINT)
    else:
        corners = view.frame.boxes_to_model(prompt.box).reshape(2, 2)
        points = np.concatenate([points, corners])
        labels = np.concatenate([labels, [BOX_START, BOX_END]])
    size = view.model.sam.config.mask_size
    masks: Tensor | None = None
    if prompt.mask is not None and low_res is None:
        masks = mask_to_low_res(prompt.mask, view.frame, size)
    elif low_res is not None:
        masks = torch.from_numpy(np.array(low_res, dtype=np.float32))[None, None]
    tokens: Tensor | None = None
    if prompt.text is not None:
        tokens = language.phrase_tokens(view.model, [prompt.text])
        if masks is None and view.model.has_dense_text:
            masks = language.dense_prompt(view, [prompt.text])
    return PromptBatch(
        points=torch.as_tensor(points, dtype=torch.float32, device=device)[None],
        labels=torch.as_tensor(labels, dtype=torch.int64, device=device)[None],
        image_index=torch.zeros(1, dtype=torch.int64, device=device),
        masks=None if masks is None else masks.to(device),
        tokens=tokens,
    )


def box_prompts(
    view: EncodedPhoto, boxes: NDArray[np.float32], *, low_res: Tensor | None = None
) -> PromptBatch:
    """P boxes in the model frame, a prompt each; a row is what `prompt_batch` makes of one box.

    Args:
        view: The photo.
        boxes: (P, 4) half-open x0, y0, x1, y1, original pixels.
        low_res: (P, 1, m, m) logits of an earlier answer to each box, if it is to be refined.
    """
    count, device = len(boxes), view.model.device
    corners = view.frame.boxes_to_model(boxes).reshape(count, 2, 2)
    return PromptBatch(
        points=torch.as_tensor(corners, dtype=torch.float32, device=device),
        labels=torch.tensor([BOX_START, BOX_END]).expand(count, 2).to(device),
        image_index=torch.zeros(count, dtype=torch.int64, device=device),
        masks=None if low_res is None else low_res.to(device),
    )
