"""`ImageView.similar`: masks of everything that look like one of them.

As in Figure 17 of arXiv 2304.02643, by the latents of the SAM (`photo.sam_embedding`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from textsam.errors import PromptError
from textsam.inference.photo.encoded import EncodedPhoto
from textsam.inference.photo.sam_embedding import Latents, crop_latents, photo_latents
from textsam.results.mask_result import MaskResult
from textsam.results.segmentation import Segmentation
from textsam.values.rle import RLE, encode_mask

MaskLike: TypeAlias = MaskResult | RLE | NDArray[np.bool_]

LEVEL = 0.9


def similar_masks(
    photo: EncodedPhoto,
    mask: MaskLike,  # the example, of this photo
    *,
    among: Callable[[], Segmentation],  # gives the masks to compare with
    threshold: float,
    latents: Latents,
) -> Segmentation:
    """Masks by falling cosine with a mask; see `ImageView.similar`, also for the errors."""
    example = _rle_of(mask, photo.size)
    if not -1 <= threshold <= 1:
        raise PromptError(f"threshold={threshold}; wanted a cosine, -1 to 1, e.g. {LEVEL}")
    if latents not in get_args(Latents):
        raise PromptError(f"latents={latents!r}; wanted one of {list(get_args(Latents))}")
    masks = among()
    masks = masks[masks.areas > 0]
    rles = [example, *masks.rles]
    if latents == "photo":
        rows = photo_latents(photo, rles)
    else:
        rows = torch.cat(list(crop_latents(photo.parts.sam, [(photo.image, rles)])))
    cosines = (rows[1:] @ rows[0]).clamp(-1, 1).numpy()
    order = [int(i) for i in np.argsort(-cosines, kind="stable") if cosines[i] >= threshold]
    return Segmentation(
        photo.size,
        [masks.rles[i] for i in order],
        similarity=cosines[order],
        iou=masks.iou[order],
        stability=masks.stability[order],
        image=photo.origin,
    )


def _rle_of(mask: MaskLike, size: tuple[int, int]) -> RLE:
    """The run-length code of a mask, which is not empty and has the photo's size."""
    if isinstance(mask, MaskResult | RLE):
        rle = mask.rle if isinstance(mask, MaskResult) else mask
    elif isinstance(mask, np.ndarray) and mask.dtype == np.bool_ and mask.ndim == 2:
        rle = encode_mask(mask)
    else:
        kind = f"{mask.dtype} {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
        raise PromptError(
            f"mask is {kind}; wanted segmentation[0], an RLE or (H, W) bool: mask > 0"
        )
    if rle.size != size:
        raise PromptError(
            f"the mask has size {rle.size}, the photo {size} (height, width); for a mask of "
            "another photo type: photo.segment(like=mask)"
        )
    if rle.is_empty:
        raise PromptError("the mask is empty, so nothing looks like it")
    return rle
