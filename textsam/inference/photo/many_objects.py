"""Several objects of one photo in one call: a mask for each prompt, in the order given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from textsam.inference.photo.encoded import EncodedPhoto
from textsam.inference.photo.prediction import stability_score
from textsam.inference.photo.zoom import predict_each
from textsam.values.prompts import Prompt
from textsam.values.rle import RLE, encode_masks


@dataclass(frozen=True, kw_only=True, eq=False)
class ObjectMasks:
    """Masks of P prompts, of which none is left out even if it is empty.

    One mask each, or the three readings of the first prompt, best predicted IoU first, then those
    of the next.
    """

    rles: list[RLE] = field(default_factory=list)
    iou: list[float] = field(default_factory=list)  # predicted
    stability: list[float] = field(default_factory=list)
    low_res: list[NDArray[np.float16]] = field(default_factory=list)  # (m, m) logits of each


def masks_of_prompts(
    photo: EncodedPhoto,
    prompts: Sequence[Prompt],
    *,
    multimask: bool = False,
    refine: bool | None = None,  # see `predict_each`
) -> ObjectMasks:
    """The masks that each prompt has on its own, decoded together."""
    found = ObjectMasks()
    for prediction in predict_each(photo, prompts, refine=refine):
        # Of the decoder's four masks, the first is for unambiguous prompts.
        order = [0]
        if multimask:
            order = [1 + int(i) for i in np.argsort(-prediction.iou[1:], kind="stable")]
        logits = np.stack([prediction.masks[k].full_size() for k in order])
        found.rles.extend(encode_masks(logits > 0))
        found.iou.extend(prediction.iou[order].tolist())
        found.stability.extend(stability_score(torch.from_numpy(logits)).tolist())
        found.low_res.extend(prediction.masks[k].low_res().astype(np.float16) for k in order)
    return found
