"""The pathway from a CLIP embedding to prompts of the mask decoder.

The paper (Section 7.5, Appendix D.5) feeds one CLIP embedding to SAM as a prompt token and leaves
the projection open. Ours is a small MLP to a few tokens. Two things are additions of textsam:

- `centre`: the mean image embedding and the mean text embedding of the training data are
  subtracted before anything else, each from its own modality, to narrow CLIP's modality gap.
- `dense`: a map of logits for the phrase (`textsam.clip.dense`) that goes in where a mask prompt
  goes. A small model learns to listen to it within minutes, where a lone token needs days.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textsam.clip.dense import DenseTextHead
from textsam.errors import WeightsError

__all__ = ["DenseSource", "Modality", "PathwayConfig", "TextPathway"]

Modality = Literal["image", "text"]
DenseSource = Literal["clip", "sam"]


@dataclass(frozen=True, kw_only=True)
class PathwayConfig:
    """Sizes of the pathway.

    `dense_channels` are the channels of the maps, finest first, that the dense head reads; empty
    means no dense head. `dense_source` says whose maps they are: the CLIP tower's ("clip"), which
    serves any SAM, or the SAM's own backbone's ("sam"), trained with the head. They are computed in
    a square frame of side `dense_image_size`; where that is the SAM's own and so are the maps, a
    phrase costs no second pass over the photo.
    """

    clip_width: int
    prompt_width: int = 256
    tokens: int = 1
    hidden: int = 512
    dense_channels: tuple[int, ...] = ()
    dense_strides: tuple[int, ...] = (8, 16, 32)
    dense_width: int = 192
    dense_image_size: int = 384
    dense_source: DenseSource = "clip"

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PathwayConfig:
        """Read what `to_dict` wrote.

        Raises:
            WeightsError: For an unknown field.
        """
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise WeightsError(f"PathwayConfig has no field {unknown}")
        tuples: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return cls(**tuples)


class TextPathway(nn.Module):
    """CLIP embeddings -> prompt tokens and, for CNN towers, a dense map (`dense`, else None)."""

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
            self.dense = DenseTextHead(config.dense_channels, config.dense_width, width)

    def centre(self, embeddings: Tensor, modality: Modality) -> Tensor:
        """Subtract the modality's mean and normalise again: (P, D) -> unit (P, D)."""
        mean = self.image_mean if modality == "image" else self.text_mean
        return F.normalize(embeddings - mean, dim=-1)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Prompt tokens (P, T, C) of centred unit embeddings (P, D)."""
        # Unit vectors have entries of 1/sqrt(D); the MLP wants entries of about one.
        x = self.projection(embeddings * math.sqrt(self.config.clip_width))
        return self.token_type + torch.unflatten(x, -1, self.token_type.shape)
