"""A phrase, then the hand: what a dialogue remembers, and which instance a click means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from textsam.inference.photo.postprocess import mask_to_low_res, nearest_mask, to_original_frame
from textsam.inference.photo.prediction import Prediction
from textsam.results.segmentation import Segmentation
from textsam.values.candidates import Candidate
from textsam.values.prompts import Prompt

if TYPE_CHECKING:
    from textsam.inference.view import ImageView

__all__ = ["Step", "chosen_instance"]

# Two masks are of one thing if they share this much of the smaller one.
_SAME_THING = 0.3


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """One step of a dialogue: what was asked, what the decoder said, which mask it goes on from.

    Attributes:
        prompt: Everything asked so far.
        prediction: None after a phrase alone, whose instances have a prompt each.
        reading: Index of the mask in `prediction`.
        result: What came out.
        instances: After a phrase alone, what is known of each mask of `result`.
    """

    prompt: Prompt
    prediction: Prediction | None
    reading: int
    result: Segmentation
    instances: tuple[Candidate, ...] = ()


def chosen_instance(
    view: ImageView, last: Step, x: float, y: float, *, fresh: Callable[[], Prediction] | None
) -> Prediction | None:
    """The instance of a phrase that a click means, for the decoder to go on from.

    Args:
        view: The photo.
        last: A step with instances.
        x: Original pixels.
        y: Original pixels.
        fresh: Gives what the phrase and the click give alone, asked for a click beside the masks;
            None for a click on what is too much, which always means an instance.

    Returns:
        A prediction with one mask; None if the click is on something else, since it lies on no
        instance and `fresh` shares little with the nearest.
    """
    masks = last.result.masks
    index = nearest_mask(masks, x, y)
    if fresh is not None and not masks[index][int(y), int(x)]:
        other = fresh().logits[0] > 0
        common = int((other & masks[index]).sum())
        if common < _SAME_THING * min(int(other.sum()), int(masks[index].sum())):
            return None
    low_res = last.instances[index].low_res
    if low_res is None:
        size = view.model.sam.config.mask_size
        low_res = mask_to_low_res(masks[index], view.frame, size)[0, 0].numpy()
    logits = torch.from_numpy(low_res.astype(np.float32))[None]
    return Prediction(
        logits=to_original_frame(logits, view.frame).numpy(),
        iou=last.result.iou[index : index + 1],
        low_res=logits.numpy(),
    )
