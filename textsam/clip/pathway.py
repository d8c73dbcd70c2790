"""The pathway from a CLIP embedding to prompts of the mask decoder.

The paper (Section 7.5, Appendix D.5) gives the decoder one CLIP embedding as a prompt token and
leaves the projection open. Here it is a small MLP to a few tokens. Two things are our additions:

- `centre` subtracts the mean image or text embedding of the training data from embeddings of that
  kind, which narrows the gap between CLIP's image and text embeddings.
- `dense` makes a map of logits for a phrase, which the decoder takes as it takes a mask prompt. A
  small model learns to use it within minutes of training, where a lone token needs days. The map is
  the cosine of the phrase with text-aligned features for each place of the image, which a small
  head makes from the maps of a CNN: CLIP's image tower, or the backbone of the SAM itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textsam.errors import WeightsError
from textsam.modeling.config import build_config
from textsam.modeling.layers import LayerNorm2d, residual_blocks

__all__ = [
    "DenseSource",
    "DenseTextHead",
    "Modality",
    "PathwayConfig",
    "TextPathway",
    "tower_maps",
]

Modality = Literal["image", "text"]
DenseSource = Literal["clip", "sam"]


@dataclass(frozen=True, kw_only=True)
class PathwayConfig:
    """Sizes of the pathway."""

    clip_width: int  # length D of CLIP's embeddings
    prompt_width: int = 256  # channels C of the decoder's prompt tokens
    tokens: int = 1  # prompt tokens per phrase
    hidden: int = 512  # width of the MLP's hidden layer
    # Channels and strides of the maps that the dense head reads, finest first; no channels mean no
    # dense head.
    dense_channels: tuple[int, ...] = ()
    dense_strides: tuple[int, ...] = (8, 16, 32)
    dense_width: int = 192  # channels of the dense head
    dense_blocks: int = 0  # its ConvNeXt blocks at twice the finest stride
    # Side of the square frame in which the maps are computed, pixels. If it is the SAM's own and
    # the maps are the SAM's too, a phrase needs no second pass over the photo.
    dense_image_size: int = 384
    # "clip": maps of CLIP's image tower, for any SAM. "sam": maps of the SAM's own backbone, which
    # the head was trained with.
    dense_source: DenseSource = "clip"

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PathwayConfig:
        """Read what `to_dict` wrote; a `WeightsError` for an unknown field."""
        config: PathwayConfig = build_config(cls, values)
        return config


class DenseTextHead(nn.Module):
    """Maps of a CNN -> unit features of CLIP width at the stride of the finest map."""

    def __init__(
        self, channels: Sequence[int], width: int, clip_width: int, *, blocks: int = 0
    ) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(
            nn.Sequential(LayerNorm2d(c), nn.Conv2d(c, width, 1)) for c in channels
        )
        self.blocks = residual_blocks(width, blocks)
        self.context = nn.Sequential(
            nn.GELU(),
            nn.Conv2d(width, width, 5, padding=2, groups=width),
            nn.GELU(),
            nn.Conv2d(width, clip_width, 1),
        )
        # Cosines are small, so logit = scale * cosine + bias. The bias makes an untrained map say
        # "absent" everywhere, which is right for most pixels.
        self.log_scale = nn.Parameter(torch.tensor(math.log(20.0)))
        self.bias = nn.Parameter(torch.tensor(-4.0))

    def features(self, maps: Sequence[Tensor]) -> Tensor:
        """Text-aligned unit features (B, D, h8, w8) from the maps of B images, finest first."""
        size = maps[0].shape[-2:]
        total = torch.zeros((), device=maps[0].device, dtype=maps[0].dtype)
        for lateral, x in zip(self.laterals, maps, strict=True):
            y = lateral(x)
            if y.shape[-2:] != size:
                y = F.interpolate(y, size, mode="bilinear", align_corners=False)
            total = total + y
        if len(self.blocks):
            coarse = F.avg_pool2d(total, 2)
            gained = self.blocks(coarse) - coarse
            total = total + F.interpolate(gained, size, mode="bilinear", align_corners=False)
        return F.normalize(self.context(total), dim=1)

    def logits(self, features: Tensor, phrases: Tensor) -> Tensor:
        """Maps (P, h8, w8) of P unit phrase embeddings (P, D) on features (P, D, h8, w8)."""
        cosine = torch.einsum("pdhw,pd->phw", features, phrases)
        return cosine * self.log_scale.exp() + self.bias


class TextPathway(nn.Module):
    """CLIP embeddings -> prompt tokens and, if `dense` is not None, a map of logits."""

    image_mean: Tensor
    text_mean: Tensor

    def __init__(self, config: PathwayConfig) -> None:
        super().__init__()
        self.config = config
        width = config.clip_width
        self.register_buffer("image_mean", torch.zeros(width))
        self.register_buffer("text_mean", torch.zeros(width))
        self.projection = nn.Sequential(
            nn.Linear(width, config.hidden),
            nn.GELU(),
            nn.Linear(config.hidden, config.tokens * config.prompt_width),
        )
        self.token_type = nn.Parameter(torch.randn(config.tokens, config.prompt_width))
        self.dense: DenseTextHead | None = None
        if config.dense_channels:
            self.dense = DenseTextHead(
                config.dense_channels, config.dense_width, width, blocks=config.dense_blocks
            )

    def centre(self, embeddings: Tensor, modality: Modality) -> Tensor:
        """Subtract the mean of the modality and normalise again: (P, D) -> unit (P, D)."""
        mean = self.image_mean if modality == "image" else self.text_mean
        return F.normalize(embeddings - mean, dim=-1)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Prompt tokens (P, T, C) of centred unit embeddings (P, D)."""
        # Entries of unit vectors are about 1/sqrt(D); the MLP is initialised for entries near 1.
        x = self.projection(embeddings * math.sqrt(self.config.clip_width))
        return self.token_type + torch.unflatten(x, -1, self.token_type.shape)


def tower_maps(visual: nn.Module, pixels: Tensor, *, strides: Sequence[int]) -> list[Tensor]:
    """Maps (B, C, S / stride, S / stride) of a CNN image tower, one for each stride.

    `pixels` (B, 3, S, S) are normalised for the tower; S may differ from its crop size. A
    `WeightsError` if the tower is not a timm CNN with these strides.
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
