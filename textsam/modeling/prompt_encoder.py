"""Points, boxes, masks and free tokens -> the decoder's sparse and dense prompt embeddings.

Section 3 and Appendix A of arXiv 2304.02643. Two labels are not in the paper: `-1`, the released
code's `not_a_point`, is a real token that the published weights expect when a prompt has no box;
`-2` marks the padding of prompts with fewer points, which is hidden from all attention, so that a
batch gives the same results as one prompt at a time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from textsam.modeling.config import SamConfig
from textsam.modeling.layers import LayerNorm2d

__all__ = [
    "ABSENT",
    "BACKGROUND",
    "BOX_END",
    "BOX_START",
    "FOREGROUND",
    "NOT_A_POINT",
    "EncodedPrompts",
    "PromptBatch",
    "PromptEncoder",
]

BACKGROUND, FOREGROUND, BOX_START, BOX_END = 0, 1, 2, 3
NOT_A_POINT, ABSENT = -1, -2


@dataclass(frozen=True, kw_only=True)
class PromptBatch:
    """P prompts for a batch of images, in the model frame; prompts with fewer points are padded."""

    points: Tensor  # (P, N, 2) float x, y in model pixels; the corners of a box are two points
    # (P, N) int64: 1 foreground, 0 background, 2 and 3 first and last corner of a box,
    # -1 `not_a_point`, -2 padding.
    labels: Tensor
    image_index: Tensor  # (P,) int64, the image of each prompt
    masks: Tensor | None = None  # (P, 1, 4s, 4s) float logits
    has_mask: Tensor | None = None  # (P,) bool, which prompts have a mask; None for all
    tokens: Tensor | None = None  # (P, T, C) extra prompt tokens, from the text pathway
    has_tokens: Tensor | None = None  # (P,) bool, which prompts have tokens; None for all

    def __len__(self) -> int:
        """Number of prompts P."""
        return len(self.points)


@dataclass(frozen=True, kw_only=True)
class EncodedPrompts:
    """Prompt embeddings as the mask decoder takes them."""

    sparse: Tensor  # (P, T, C) tokens
    present: Tensor | None  # (P, T) bool, False for padding; None if nothing is padded
    dense: Tensor  # (P, C, s, s), added to the image embedding


class PromptEncoder(nn.Module):
    """Encode a `PromptBatch` to C-dimensional tokens and a dense map."""

    position_matrix: Tensor

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        self.image_size = config.image_size
        self.embedding_size = config.embedding_size
        dim = config.embed_dim
        # Random Fourier features (arXiv 2006.10739); never trained, so a buffer, not a parameter.
        self.register_buffer("position_matrix", torch.randn(2, dim // 2))
        self.point_embeddings = nn.Embedding(4, dim)
        self.not_a_point = nn.Embedding(1, dim)
        self.no_mask = nn.Embedding(1, dim)
        inner = config.mask_channels
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, inner // 4, 2, stride=2),
            LayerNorm2d(inner // 4),
            nn.GELU(),
            nn.Conv2d(inner // 4, inner, 2, stride=2),
            LayerNorm2d(inner),
            nn.GELU(),
            nn.Conv2d(inner, dim, 1),
        )

    def forward(self, prompts: PromptBatch) -> EncodedPrompts:
        """Encode prompts.

        Args:
            prompts: P prompts in model pixels.

        Returns:
            Sparse tokens (P, T, C): the points in order, then the extra tokens; dense (P, C, s, s).
        """
        sparse = self._embed_points(prompts.points, prompts.labels)
        present = prompts.labels != ABSENT
        if prompts.tokens is not None:
            sparse = torch.cat([sparse, prompts.tokens], dim=1)
            has = prompts.has_tokens
            if has is None:
                has = torch.ones(len(prompts), dtype=torch.bool, device=present.device)
            present = torch.cat([present, has[:, None].expand(-1, prompts.tokens.shape[1])], dim=1)
        return EncodedPrompts(
            sparse=sparse,
            # Without a mask, attention can use its fastest kernel.
            present=None if bool(present.all()) else present,
            dense=self._embed_masks(prompts),
        )

    def dense_positions(self) -> Tensor:
        """Positional encoding of the embedding's grid: (1, C, s, s)."""
        size = self.embedding_size
        centres = (torch.arange(size, device=self.position_matrix.device) + 0.5) / size
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        encoded = self._encode_positions(torch.stack([x, y], dim=-1))
        return encoded.permute(2, 0, 1)[None]

    def _encode_positions(self, unit: Tensor) -> Tensor:
        """Fourier features of coordinates in [0, 1]: (..., 2) -> (..., C)."""
        unit = unit.to(self.position_matrix.dtype)
        angles = 2 * math.pi * ((2 * unit - 1) @ self.position_matrix)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    def _embed_points(self, points: Tensor, labels: Tensor) -> Tensor:
        # As in the released code, +0.5 moves a pixel index to the centre of the pixel.
        position = self._encode_positions((points + 0.5) / self.image_size)
        kind = self.point_embeddings(labels.clamp(min=0))
        padding = self.not_a_point.weight[0].expand_as(kind)
        return torch.where((labels >= 0)[..., None], position + kind, padding)

    def _embed_masks(self, prompts: PromptBatch) -> Tensor:
        size = self.embedding_size
        empty = self.no_mask.weight[0][None, :, None, None]
        if prompts.masks is None:
            return empty.expand(len(prompts), -1, size, size)
        dense = torch.as_tensor(self.mask_downscaling(prompts.masks))
        if prompts.has_mask is None:
            return dense
        return torch.where(prompts.has_mask[:, None, None, None], dense, empty)
