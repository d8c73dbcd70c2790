"""Prompts on an image embedding -> masks: prompt encoder, two-way transformer, mask decoder.

Section 3 and Appendix A of arXiv 2304.02643. Two labels are not in the paper: `-1`, the released
code's `not_a_point`, is a real token that the published weights expect when a prompt has no box;
`-2` marks the padding of prompts with fewer points, which is hidden from all attention, so that a
batch gives the same results as one prompt at a time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textsam.modeling.config import SamConfig
from textsam.modeling.layers import LayerNorm2d

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

    def __getitem__(self, rows: slice) -> PromptBatch:
        """Some of the prompts."""
        columns: dict[str, Any] = {}
        for each in fields(self):
            column = getattr(self, each.name)
            columns[each.name] = None if column is None else column[rows]
        return PromptBatch(**columns)


def join_prompts(batches: Sequence[PromptBatch], images: Sequence[int]) -> PromptBatch:
    """One batch of several, each on the image of that index; prompts with fewer points are padded.

    All batches have the same number of extra tokens, or none has any.
    """
    if len(batches) == 1 and images[0] == 0:
        return batches[0]
    count = max(batch.points.shape[1] for batch in batches)
    counts = torch.tensor([len(batch) for batch in batches])
    device = batches[0].points.device
    masks = [batch.masks for batch in batches]
    some = next((mask for mask in masks if mask is not None), None)
    filled = [
        some.new_zeros(len(batch), *some.shape[1:]) if mask is None else mask
        for batch, mask in zip(batches, masks, strict=True)
        if some is not None
    ]
    has_mask = torch.tensor([mask is not None for mask in masks]).repeat_interleave(counts)
    tokens = [batch.tokens for batch in batches if batch.tokens is not None]
    return PromptBatch(
        points=torch.cat([_padded(b.points, count, 0) for b in batches]),
        labels=torch.cat([_padded(b.labels[..., None], count, ABSENT)[..., 0] for b in batches]),
        image_index=torch.tensor(images).repeat_interleave(counts).to(device),
        masks=torch.cat(filled) if filled else None,
        has_mask=None if bool(has_mask.all()) else has_mask.to(device),
        tokens=torch.cat(tokens) if tokens else None,
    )


def _padded(rows: Tensor, count: int, value: int) -> Tensor:
    """Rows (P, N, n) padded to (P, count, n)."""
    return F.pad(rows, (0, 0, 0, count - rows.shape[1]), value=value)


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
        """P prompts in model pixels -> tokens, the points first, then the extra ones; dense map."""
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
        tokens = self.attend_among_tokens(tokens, token_positions, present)

        keys = image + image_positions
        update = self.token_to_image(tokens + token_positions, keys, image)
        tokens = self.norms[1](tokens + self.dropout(update))
        tokens = self.norms[2](tokens + self.dropout(self.mlp(tokens)))

        update = self.image_to_token(keys, tokens + token_positions, tokens, present)
        image = self.norms[3](image + self.dropout(update))
        return tokens, image

    def attend_among_tokens(
        self, tokens: Tensor, positions: Tensor, present: Tensor | None
    ) -> Tensor:
        """Self-attention of tokens (P, T, C) with their positions, and its norm."""
        if self.first:
            # As in the released code, the first layer adds no positions: tokens and positions are
            # the same tensor there. It also has no residual connection, unless the config adds it.
            update = self.self_attention(tokens, tokens, tokens, present)
            tokens = tokens + self.dropout(update) if self.first_residual else update
        else:
            q = tokens + positions
            tokens = tokens + self.dropout(self.self_attention(q, q, tokens, present))
        return torch.as_tensor(self.norms[0](tokens))


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
        """Update tokens (P, T, C), output tokens first, and image (P, s*s, C)."""
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


class MLP(nn.Module):
    """Linear layers with ReLU between them, as in the mask and IoU heads (Appendix A)."""

    def __init__(self, inputs: int, hidden: int, outputs: int, *, depth: int) -> None:
        super().__init__()
        sizes = [inputs, *[hidden] * (depth - 1), outputs]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., inputs) to (..., outputs)."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return torch.as_tensor(self.layers[-1](x))


@dataclass(frozen=True, kw_only=True)
class MaskPrediction:
    """Masks of P prompts.

    Attributes:
        logits: (P, K, 4s, 4s) at a quarter of the model frame, padding included.
        iou: (P, K) predicted IoU of each mask with the object that the prompt means.

    Mask 0 is for unambiguous prompts; the other three are for ambiguous ones, such as a single
    click: whole, part and subpart (Section 3, "Resolving ambiguity").
    """

    logits: Tensor
    iou: Tensor

    def single(self) -> MaskPrediction:
        """The mask for an unambiguous prompt: K = 1."""
        return MaskPrediction(logits=self.logits[:, :1], iou=self.iou[:, :1])

    def multiple(self) -> MaskPrediction:
        """The three masks for an ambiguous prompt: K = 3."""
        return MaskPrediction(logits=self.logits[:, 1:], iou=self.iou[:, 1:])

    def best(self) -> MaskPrediction:
        """The mask with the highest predicted IoU for each prompt: K = 1."""
        rows = torch.arange(len(self.iou), device=self.iou.device)
        top = self.iou.argmax(dim=1)
        return MaskPrediction(logits=self.logits[rows, top, None], iou=self.iou[rows, top, None])


class HighQuality(nn.Module):
    """SAM-HQ's output token, and the features of its mask (arXiv 2306.01567, Section 3.2)."""

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        dim, early = config.embed_dim, config.early_width
        self.token = nn.Embedding(1, dim)
        self.head = MLP(dim, dim, dim // 8, depth=3)
        self.early_upscaling = _two_layers(
            nn.ConvTranspose2d(early, dim, 2, stride=2),
            nn.ConvTranspose2d(dim, dim // 8, 2, stride=2),
        )
        self.final_upscaling = _two_layers(
            nn.ConvTranspose2d(dim, dim // 4, 2, stride=2),
            nn.ConvTranspose2d(dim // 4, dim // 8, 2, stride=2),
        )
        self.mask_features = _two_layers(
            nn.Conv2d(dim // 8, dim // 4, 3, padding=1),
            nn.Conv2d(dim // 4, dim // 8, 3, padding=1),
        )

    def fuse(self, embedding: Tensor, early: Tensor) -> Tensor:
        """Last (B, C, s, s) and early features (B, C_0, s, s) of images -> (B, C/8, 4s, 4s)."""
        return torch.add(self.final_upscaling(embedding), self.early_upscaling(early))

    def forward(self, token: Tensor, upscaled: Tensor, detail: Tensor) -> Tensor:
        """Logits (P, 1, 4s, 4s), to be added to those of every mask.

        From the updated token (P, C), the decoder's (P, C/8, 4s, 4s), and `fuse`d features.
        """
        features = self.mask_features(upscaled) + detail
        logits = self.head(token)[:, None] @ features.flatten(2)
        return torch.unflatten(logits, 2, upscaled.shape[-2:])


Convolution = nn.Conv2d | nn.ConvTranspose2d


def _two_layers(first: Convolution, last: Convolution) -> nn.Sequential:
    return nn.Sequential(first, LayerNorm2d(first.out_channels), nn.GELU(), last)


class MaskDecoder(nn.Module):
    """Decode each prompt on its image embedding to four masks."""

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        dim = config.embed_dim
        masks = config.multimasks + 1
        self.transformer = TwoWayTransformer(config)
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(masks, dim)
        self.upscale_1 = nn.ConvTranspose2d(dim, dim // 4, 2, stride=2)
        self.upscale_norm = LayerNorm2d(dim // 4)
        self.upscale_2 = nn.ConvTranspose2d(dim // 4, dim // 8, 2, stride=2)
        self.mask_heads = nn.ModuleList(MLP(dim, dim, dim // 8, depth=3) for _ in range(masks))
        self.iou_head = MLP(dim, config.iou_hidden, masks, depth=config.iou_depth)
        self.hq = HighQuality(config) if config.hq else None

    def forward(
        self,
        embedding: Tensor,
        prompts: EncodedPrompts,
        positions: Tensor,
        skips: tuple[Tensor, ...] = (),
        detail: Tensor | None = None,
    ) -> MaskPrediction:
        """Decode P prompts.

        Args:
            embedding: (P, C, s, s), the embedding of each prompt's image.
            prompts: P encoded prompts.
            positions: (1, C, s, s) positional encoding of the grid.
            skips: (P, C/4, 2s, 2s) and (P, C/8, 4s, 4s) to add while upscaling, or ().
            detail: (P, C/8, 4s, 4s), the `ImageFeatures.detail` of a SAM-HQ.

        Returns:
            Four masks for each prompt, (P, 4, 4s, 4s), and their predicted IoU (P, 4).
        """
        count, size = len(embedding), embedding.shape[-1]
        outputs = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        if self.hq is not None:
            outputs = torch.cat([outputs, self.hq.token.weight])
        tokens = torch.cat([outputs.expand(count, -1, -1), prompts.sparse], dim=1)
        present = prompts.present
        if present is not None:
            present = F.pad(present, (len(outputs), 0), value=True)  # output tokens come first

        image = (embedding + prompts.dense).flatten(2).transpose(1, 2)
        image_positions = positions.flatten(2).transpose(1, 2)
        tokens, image = self.transformer(tokens, image, image_positions, present)

        upscaled = self._upscale(image.transpose(1, 2).unflatten(2, (size, size)), skips)
        weights = self.mask_weights(tokens)
        # Each mask token becomes the weights of a 1x1 convolution over the upscaled image.
        logits = (weights @ upscaled.flatten(2)).unflatten(2, upscaled.shape[-2:])
        if self.hq is not None:
            if detail is None:
                raise ValueError("a SAM-HQ decodes features with `detail`: call Sam.encode_image")
            logits = logits + self.hq(tokens[:, len(outputs) - 1], upscaled, detail)
        return MaskPrediction(logits=logits, iou=self.iou_head(tokens[:, 0]))

    def mask_weights(self, tokens: Tensor) -> Tensor:
        """What each mask token becomes, (P, K, C/8), from all updated tokens (P, T, C)."""
        heads = enumerate(self.mask_heads)
        return torch.stack([head(tokens[:, 1 + i]) for i, head in heads], dim=1)

    def _upscale(self, image: Tensor, skips: tuple[Tensor, ...]) -> Tensor:
        """Upscale (P, C, s, s) to (P, C/8, 4s, 4s)."""
        x = self.upscale_1(image)
        if skips:
            x = x + skips[0]
        x = self.upscale_2(F.gelu(self.upscale_norm(x)))
        if skips:
            x = x + skips[1]
        return F.gelu(x)
