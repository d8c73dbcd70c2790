"""Mask embeddings in the SAM's own space: looks rather than names.

The image encoder's output inside a mask, averaged over space (arXiv 2304.02643, Appendix D.6); in
two ways:

| | what is encoded | passes of the encoder |
|---|---|---|
| `crop_latents` | a crop around the mask and its mirror image, as in the paper | two a mask |
| `photo_latents` | the photo, as it is encoded already | none |

The paper does not say how large the crop is. Ours is the square of masked CLIP
(`textsam.clip.masked`), whose side the caller chooses; what it has beyond the photo is the mean
colour, which is zero after normalisation, as the padding of a photo is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from textsam.clip.mask_crops import crop_batches
from textsam.inference.photo.encoded import EncodedPhoto
from textsam.inference.photo.postprocess import mask_to_low_res
from textsam.modeling.sam import Sam
from textsam.values.rle import RLE, decode_rles

__all__ = [
    "Latents",
    "crop_latents",
    "in_frame",
    "latents_of_crops",
    "photo_latents",
    "pooled_latents",
]

Latents = Literal["crops", "photo"]

_BATCH = 32  # masks of a photo that are decoded at once


def photo_latents(photo: EncodedPhoto, rles: Sequence[RLE]) -> Tensor:
    """Embed masks of an encoded photo: n codes -> (n, C), as `pooled_latents`."""
    rows = [torch.zeros(0, photo.parts.sam.config.embed_dim)]
    for start in range(0, len(rles), _BATCH):
        masks = decode_rles(rles[start : start + _BATCH], photo.size)
        rows.append(pooled_latents(photo, in_frame(photo, masks)))
    return torch.cat(rows)


@torch.no_grad()
def pooled_latents(photo: EncodedPhoto, masks: Tensor) -> Tensor:
    """Embed masks by what a photo's encoding holds inside them.

    Args:
        photo: The encoded photo.
        masks: (n, m, m) bool, or shares 0 to 1, in the padded model frame, on any grid.

    Returns:
        (n, C) float32 of unit length on the CPU, C = `SamConfig.embed_dim`; zeros for an empty
        mask.
    """
    features = photo.features.embedding.float().cpu()
    return F.normalize(_masked_sums(features, masks.float().cpu()), dim=-1)


def crop_latents(
    sam: Sam,
    photos: Iterable[tuple[NDArray[np.uint8], Sequence[RLE]]],
    *,
    expand: float = 1.5,
    batch: int = 8,
) -> Iterator[Tensor]:
    """Embed masks of photos that need not be encoded, a batch of the encoder at a time.

    Args:
        sam: Encodes the crops.
        photos: Images (H, W, 3) uint8 RGB, each with its masks.
        expand: Side of a crop by the longer side of the mask's box, at least 1.
        batch: Masks at once; batches go across photos.

    Yields:
        (n, C) as `latents_of_crops`, in the order of the masks.

    Raises:
        PromptError: A mask is empty or not of its photo's size.
    """
    red, green, blue = (round(value) for value in sam.config.pixel_mean)
    size = sam.config.image_size
    crops = crop_batches(photos, size=size, expand=expand, fill=(red, green, blue), batch=batch)
    return (latents_of_crops(sam, *each) for each in crops)


@torch.no_grad()
def latents_of_crops(sam: Sam, crops: Tensor, masks: Tensor) -> Tensor:
    """Embed masks by a crop around each and its mirror image.

    Args:
        sam: Encodes them, all in one batch.
        crops: (n, 3, S, S) uint8 RGB, `SamConfig.image_size` pixels.
        masks: (n, S, S) float, 0..1: the share of each pixel that is inside.

    Returns:
        (n, C) float32 of unit length on the CPU. A crop's and its mirror image's are the same.
    """
    total = torch.zeros(len(crops), sam.config.embed_dim)
    for turned in (False, True):
        seen, inside = (crops.flip(-1), masks.flip(-1)) if turned else (crops, masks)
        features = sam.encode_image(sam.preprocess(list(seen))).embedding.float().cpu()
        # Both have the same area inside, so the sum is the mean over both up to its length.
        total += _masked_sums(features, inside.float().cpu())
    return F.normalize(total, dim=-1)


def in_frame(photo: EncodedPhoto, masks: NDArray[np.bool_] | Iterable[NDArray[np.bool_]]) -> Tensor:
    """Masks (n, H, W) -> shares (n, m, m) in the padded model frame."""
    size = photo.parts.sam.config.mask_size
    shares = (mask.astype(np.float32) for mask in masks)
    return torch.stack([mask_to_low_res(m, photo.frame, size)[0, 0].clamp_min(0) for m in shares])


def _masked_sums(features: Tensor, masks: Tensor) -> Tensor:
    """Features (1 or n, C, h, w), weighted by masks (n, m, m) and summed over space: (n, C)."""
    weight = F.adaptive_avg_pool2d(masks, (features.shape[-2], features.shape[-1]))
    if len(features) == 1:
        return torch.einsum("nhw,chw->nc", weight, features[0])
    return torch.einsum("nhw,nchw->nc", weight, features)
