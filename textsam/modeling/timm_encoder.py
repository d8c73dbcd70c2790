"""Any `timm` backbone as a SAM image encoder: a pyramid neck to one stride-16 embedding.

An addition of textsam: the paper uses plain ViTs only. The decoder may add the maps at strides 8
and 4 while it upscales, as SAM 2 does (arXiv 2408.00714, Section 4).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textsam.modeling.config import SamConfig, TimmConfig
from textsam.modeling.image_encoder import ImageFeatures
from textsam.modeling.layers import LayerNorm2d

__all__ = ["TimmEncoder"]

_PYRAMID_STRIDES = (8, 16, 32)
_SKIP_STRIDES = (8, 4)


class TimmEncoder(nn.Module):
    """Backbone, neck and skip projections."""

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        if not isinstance(config.encoder, TimmConfig):
            raise ValueError(f"TimmEncoder needs a TimmConfig, got {type(config.encoder).__name__}")
        import timm  # slow to import, so only when a timm model is built

        dim, name = config.embed_dim, config.encoder.name
        self.backbone = timm.create_model(name, pretrained=False, features_only=True)
        info: Any = self.backbone.feature_info
        self.strides: tuple[int, ...] = tuple(info.reduction())
        channels = dict(zip(self.strides, info.channels(), strict=True))
        self.fused = tuple(s for s in self.strides if s in _PYRAMID_STRIDES)
        if 16 not in self.fused:
            raise ValueError(f"timm model {name!r} has strides {self.strides}; one must be 16")
        self.laterals = nn.ModuleDict(
            {str(s): _lateral(channels[s], dim, stride=s) for s in self.fused}
        )
        self.neck = nn.Sequential(
            nn.GELU(), nn.Conv2d(dim, dim, 3, padding=1, bias=False), LayerNorm2d(dim)
        )
        self.skips = nn.ModuleDict()
        if config.encoder.skips:
            missing = [s for s in _SKIP_STRIDES if s not in channels]
            if missing:
                raise ValueError(
                    f"timm model {name!r} has no stride {missing} for skips; set skips=False"
                )
            gain = config.encoder.skip_gain
            for stride, width in zip(_SKIP_STRIDES, (dim // 4, dim // 8), strict=True):
                self.skips[str(stride)] = _skip(channels[stride], width, gain=gain)

    def forward(self, pixels: Tensor) -> ImageFeatures:
        """Encode normalised, padded images (B, 3, S, S)."""
        maps = self._maps(pixels)
        embedding = sum(
            (self._at_stride_16(self.laterals[str(s)](maps[s]), s) for s in self.fused),
            start=torch.zeros((), device=pixels.device, dtype=pixels.dtype),
        )
        return ImageFeatures(
            embedding=self.neck(embedding),
            skips=tuple(layer(maps[int(s)]) for s, layer in self.skips.items()),
            pyramid=tuple(maps[s] for s in sorted(self.fused)),
        )

    def pyramid(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Maps of `ImageFeatures.pyramid` alone, for images (B, 3, h, w) of any size."""
        maps = self._maps(pixels)
        return tuple(maps[s] for s in sorted(self.fused))

    def _maps(self, pixels: Tensor) -> dict[int, Tensor]:
        return dict(zip(self.strides, self.backbone(pixels), strict=True))

    @staticmethod
    def _at_stride_16(x: Tensor, stride: int) -> Tensor:
        if stride == 32:
            return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return x


def _lateral(channels: int, dim: int, *, stride: int) -> nn.Module:
    """Normalise one map and project it to the neck's width; stride 8 is halved."""
    kernel = 2 if stride == 8 else 1
    return nn.Sequential(LayerNorm2d(channels), nn.Conv2d(channels, dim, kernel, stride=kernel))


def _skip(channels: int, width: int, *, gain: float) -> nn.Module:
    # Backbone maps have a standard deviation of 7 to 8: unnormalised they outweigh the prompt.
    norm = LayerNorm2d(channels)
    nn.init.constant_(norm.weight, gain)
    return nn.Sequential(norm, nn.Conv2d(channels, width, 1))
