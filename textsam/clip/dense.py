"""Text-aligned features per pixel, from the maps of a CNN CLIP tower (ours, not the paper's).

The tower that embeds masked crops runs once more on the whole image; a small head brings its maps
to CLIP's width, and their cosine with a phrase is a map of logits. The decoder takes it where it
takes a mask prompt. It reads CLIP only, so it serves any SAM.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textsam.errors import WeightsError
from textsam.modeling.layers import LayerNorm2d

__all__ = ["DenseTextHead", "tower_maps"]


def tower_maps(visual: nn.Module, pixels: Tensor, *, strides: Sequence[int]) -> list[Tensor]:
    """Intermediate maps of an open_clip tower that wraps a timm CNN.

    Args:
        visual: The image tower, open_clip's `TimmModel`.
        pixels: (B, 3, S, S) normalised for the tower; S may differ from its crop size.
        strides: Which maps, finest first.

    Returns:
        One (B, C, S / stride, S / stride) for each stride.

    Raises:
        WeightsError: The tower is not a timm CNN with these strides.
    """
    trunk: Any = getattr(visual, "trunk", None)
    known = [] if trunk is None else [info["reduction"] for info in trunk.feature_info]
    if not set(strides) <= set(known):
        raise WeightsError(
            f"a dense text head needs a timm CNN tower with maps at strides {tuple(strides)}; "
            f"this one is {type(visual).__name__} with {known or 'none'}"
        )
    indices = [known.index(stride) for stride in strides]
    maps = trunk.forward_intermediates(pixels, indices=indices, intermediates_only=True)
    return list(maps)


class DenseTextHead(nn.Module):
    """Maps of a CLIP tower -> unit features of CLIP width at the finest map's stride."""

    def __init__(self, channels: Sequence[int], width: int, clip_width: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(
            nn.Sequential(LayerNorm2d(c), nn.Conv2d(c, width, 1)) for c in channels
        )
        self.context = nn.Sequential(
            nn.GELU(),
            nn.Conv2d(width, width, 5, padding=2, groups=width),
            nn.GELU(),
            nn.Conv2d(width, clip_width, 1),
        )
        # Cosines are small numbers: logit = scale * cosine + bias, from a map that says "absent".
        self.log_scale = nn.Parameter(torch.tensor(math.log(20.0)))
        self.bias = nn.Parameter(torch.tensor(-4.0))

    def features(self, maps: Sequence[Tensor]) -> Tensor:
        """Text-aligned unit features (B, D, h8, w8) from B images' maps, finest first."""
        size = maps[0].shape[-2:]
        total = torch.zeros((), device=maps[0].device, dtype=maps[0].dtype)
        for lateral, x in zip(self.laterals, maps, strict=True):
            y = lateral(x)
            if y.shape[-2:] != size:
                y = F.interpolate(y, size, mode="bilinear", align_corners=False)
            total = total + y
        return F.normalize(self.context(total), dim=1)

    def logits(self, features: Tensor, phrases: Tensor) -> Tensor:
        """Maps (P, h8, w8) of P unit phrases (P, D) on their features (P, D, h8, w8)."""
        cosine = torch.einsum("pdhw,pd->phw", features, phrases)
        return cosine * self.log_scale.exp() + self.bias
