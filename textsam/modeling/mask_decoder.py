"""The mask decoder: tokens and image -> masks and their predicted IoU (Section 3, Appendix A)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textsam.modeling.config import SamConfig
from textsam.modeling.layers import MLP, LayerNorm2d
from textsam.modeling.prompt_encoder import EncodedPrompts
from textsam.modeling.transformer import TwoWayTransformer

__all__ = ["MaskDecoder", "MaskPrediction"]


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

    def forward(
        self,
        embedding: Tensor,
        prompts: EncodedPrompts,
        positions: Tensor,
        skips: tuple[Tensor, ...] = (),
    ) -> MaskPrediction:
        """Decode P prompts.

        Args:
            embedding: (P, C, s, s), the embedding of each prompt's image.
            prompts: P encoded prompts.
            positions: (1, C, s, s) positional encoding of the grid.
            skips: (P, C/4, 2s, 2s) and (P, C/8, 4s, 4s) to add while upscaling, or ().

        Returns:
            Four masks for each prompt, (P, 4, 4s, 4s), and their predicted IoU (P, 4).
        """
        count, size = len(embedding), embedding.shape[-1]
        outputs = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([outputs.expand(count, -1, -1), prompts.sparse], dim=1)
        present = prompts.present
        if present is not None:
            present = F.pad(present, (len(outputs), 0), value=True)  # output tokens come first

        image = (embedding + prompts.dense).flatten(2).transpose(1, 2)
        image_positions = positions.flatten(2).transpose(1, 2)
        tokens, image = self.transformer(tokens, image, image_positions, present)

        upscaled = self._upscale(image.transpose(1, 2).unflatten(2, (size, size)), skips)
        weights = torch.stack(
            [head(tokens[:, 1 + i]) for i, head in enumerate(self.mask_heads)], dim=1
        )
        # Each mask token becomes the weights of a 1x1 convolution over the upscaled image.
        logits = (weights @ upscaled.flatten(2)).unflatten(2, upscaled.shape[-2:])
        return MaskPrediction(logits=logits, iou=self.iou_head(tokens[:, 0]))

    def _upscale(self, image: Tensor, skips: tuple[Tensor, ...]) -> Tensor:
        """Upscale (P, C, s, s) to (P, C/8, 4s, 4s)."""
        x = self.upscale_1(image)
        if skips:
            x = x + skips[0]
        x = self.upscale_2(F.gelu(self.upscale_norm(x)))
        if skips:
            x = x + skips[1]
        return F.gelu(x)
