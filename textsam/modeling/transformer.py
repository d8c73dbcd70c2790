"""The two-way transformer of the mask decoder (Section 3, Appendix A of arXiv 2304.02643)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textsam.modeling.config import SamConfig

__all__ = ["Attention", "TwoWayBlock", "TwoWayTransformer"]


class Attention(nn.Module):
    """Multi-head attention whose inner width may be smaller than the model's."""

    def __init__(self, dim: int, heads: int, *, downsample: int = 1) -> None:
        super().__init__()
        inner = dim // downsample
        if inner % heads:
            raise ValueError(
                f"attention width {inner} (= {dim} / {downsample}) is no multiple of {heads} heads"
            )
        self.heads = heads
        self.q_proj = nn.Linear(dim, inner)
        self.k_proj = nn.Linear(dim, inner)
        self.v_proj = nn.Linear(dim, inner)
        self.out_proj = nn.Linear(inner, dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, present: Tensor | None = None) -> Tensor:
        """Attend from q (P, Q, C) to k, v (P, T, C); `present` (P, T) bool hides padded keys."""
        q, k, v = (self._split(x) for x in (self.q_proj(q), self.k_proj(k), self.v_proj(v)))
        mask = None if present is None else present[:, None, None, :]
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return torch.as_tensor(self.out_proj(x.transpose(1, 2).flatten(2)))

    def _split(self, x: Tensor) -> Tensor:
        return torch.unflatten(x, -1, (self.heads, -1)).transpose(1, 2)


class TwoWayBlock(nn.Module):
    """Self-attention of tokens, tokens attend to image, MLP on tokens, image attends to tokens."""

    def __init__(self, config: SamConfig, *, first: bool) -> None:
        super().__init__()
        dim, heads, down = config.embed_dim, config.decoder_heads, config.attention_downsample
        self.first = first
        self.first_residual = config.first_layer_residual
        self.self_attention = Attention(dim, heads)
        self.token_to_image = Attention(dim, heads, downsample=down)
        self.image_to_token = Attention(dim, heads, downsample=down)
        self.mlp = nn.Sequential(
            nn.Linear(dim, config.decoder_mlp), nn.ReLU(), nn.Linear(config.decoder_mlp, dim)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(dim, config.decoder_norm_eps) for _ in range(4))
        self.dropout = nn.Dropout(config.decoder_dropout)

    def forward(
        self,
        tokens: Tensor,
        image: Tensor,
        *,
        token_positions: Tensor,
        image_positions: Tensor,
        present: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Update tokens (P, T, C) and image (P, s*s, C)."""
        if self.first:
            # As in the released code, the first layer adds no positions: tokens and positions are
            # the same tensor there. It also has no residual connection, unless the config adds it.
            update = self.self_attention(tokens, tokens, tokens, present)
            tokens = tokens + self.dropout(update) if self.first_residual else update
        else:
            q = tokens + token_positions
            tokens = tokens + self.dropout(self.self_attention(q, q, tokens, present))
        tokens = self.norms[0](tokens)

        keys = image + image_positions
        update = self.token_to_image(tokens + token_positions, keys, image)
        tokens = self.norms[1](tokens + self.dropout(update))
        tokens = self.norms[2](tokens + self.dropout(self.mlp(tokens)))

        update = self.image_to_token(keys, tokens + token_positions, tokens, present)
        image = self.norms[3](image + self.dropout(update))
        return tokens, image


class TwoWayTransformer(nn.Module):
    """Two-way blocks and a final attention from the tokens to the image."""

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            TwoWayBlock(config, first=index == 0) for index in range(config.decoder_depth)
        )
        self.final_attention = Attention(
            config.embed_dim, config.decoder_heads, downsample=config.attention_downsample
        )
        self.final_norm = nn.LayerNorm(config.embed_dim, config.decoder_norm_eps)

    def forward(
        self, tokens: Tensor, image: Tensor, image_positions: Tensor, present: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Update tokens and image.

        Args:
            tokens: (P, T, C) output tokens followed by prompt tokens.
            image: (P, s*s, C) image embedding plus dense prompt.
            image_positions: (1, s*s, C).
            present: (P, T) bool, False for tokens that only pad the batch.
        """
        positions = tokens  # added again in every layer, so that each knows the prompts
        for block in self.blocks:
            tokens, image = block(
                tokens,
                image,
                token_positions=positions,
                image_positions=image_positions,
                present=present,
            )
        update = self.final_attention(tokens + positions, image + image_positions, image)
        return self.final_norm(tokens + update), image
