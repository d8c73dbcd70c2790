"""Mask embeddings in the SAM's own space: looks rather than names.

The image encoder's output inside a mask, averaged over space, as in arXiv 2304.02643, Appendix D.6;
but of the photo as it is encoded already, not of a crop around the mask and its flip, which would
cost two passes of the encoder for each mask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from textsam.inference.encoded import EncodedPhoto

__all__ = ["pooled_latents"]


@torch.no_grad()
def pooled_latents(view: EncodedPhoto, masks: Tensor) -> Tensor:
    """Embed masks by what the view's encoding holds inside them.

    Args:
        view: The encoded photo.
        masks: (n, m, m) bool, or shares 0 to 1, in the padded model frame, on any grid.

    Returns:
        (n, C) float32 of unit length on the CPU, C = `SamConfig.embed_dim`; zeros for an empty
        mask.
    """
    features = view.features.embedding.float().cpu()
    height, width = features.shape[-2:]
    weight = F.adaptive_avg_pool2d(masks.float().cpu(), (height, width))
    return F.normalize(torch.einsum("nhw,chw->nc", weight, features[0]), dim=-1)
