"""Mask embeddings by the SAM's image encoder: looks rather than names.

The image encoder's output, averaged inside a mask (arXiv 2304.02643, Appendix D.6), in two ways:

| | what is encoded | passes of the encoder |
|---|---|---|
| `crop_latents` | a crop around the mask and its mirror image, as in the paper | two per mask |
| `photo_latents` | the photo, once for all masks | none |

The paper does not say how large the crop is. Here it is a square as for masked CLIP
(`textsam.clip.masked`); beyond the photo it has the mean colour, which normalisation turns into
zero, as in the padding of a photo.
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
from textsam.inference.photo.encoded import EncodedPhoto, mask_to_low_res
from textsam.modeling.core import Core
from textsam.modeling.precision import in_float32
from textsam.values.rle import RLE, decode_rles

Latents = Literal["crops", "photo"]

_BATCH = 32  # masks decoded from run-length codes at once


@in_float32
def photo_latents(photo: EncodedPhoto, rles: Sequence[RLE]) -> Tensor:
    """Embed n masks of an encoded photo: (n, C), see `pooled_latents`."""
    rows = [torch.zeros(0, photo.parts.sam.config.embed_dim)]
    for start in range(0, len(rles), _BATCH):
        masks = decode_rles(rles[start : start + _BATCH], photo.size)
        rows.append(pooled_latents(photo, in_frame(photo, masks)))
    return torch.cat(rows)


@torch.no_grad()
@in_float32
def pooled_latents(photo: EncodedPhoto, masks: Tensor) -> Tensor:
    """Embed masks by the mean of a photo's encoding inside them.

    Masks (n, m, m) bool, or shares 0 to 1, in the padded model frame; m may be any size -> (n, C)
    float32 of unit length on the CPU, C = `SamConfig.embed_dim`; zeros for an empty mask.
    """
    features = photo.features.embedding.float().cpu()
    return F.normalize(_masked_sums(features, masks.float().cpu()), dim=-1)


def crop_latents(
    sam: Core,
    # Images (H, W, 3) uint8 RGB, each with its masks.
    photos: Iterable[tuple[NDArray[np.uint8], Sequence[RLE]]],
    *,
    expand: float = 1.5,  # side of a crop by the longer side of the mask's box, at least 1
    batch: int = 8,  # masks in a batch, which may come from several photos
) -> Iterator[Tensor]:
    """Embed masks of photos by crops, one batch of the image encoder at a time, each (n, C)."""
    red, green, blue = (round(value) for value in sam.config.pixel_mean)
    size = sam.config.image_size
    crops = crop_batches(photos, size=size, expand=expand, fill=(red, green, blue), batch=batch)
    return (latents_of_crops(sam, *each) for each in crops)


@torch.no_grad()
@in_float32
def latents_of_crops(sam: Core, crops: Tensor, masks: Tensor) -> Tensor:
    """Embed masks by a crop around each and its mirror image, for both of which they are equal.

    Crops (n, 3, S, S) uint8 RGB of the model's size and masks (n, S, S), the share of each pixel
    that is inside -> (n, C) float32 of unit length on the CPU.
    """
    total = torch.zeros(len(crops), sam.config.embed_dim)
    for pixels, inside in ((crops, masks), (crops.flip(-1), masks.flip(-1))):
        features = sam.encode_image(sam.preprocess(list(pixels))).embedding.float().cpu()
        # Both have the same area inside, so their sum has the direction of the mean.
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
