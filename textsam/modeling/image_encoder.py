"""Segment Anything's image encoder: a plain ViT with windows and four global blocks.

arXiv 2304.02643, Section 3 and Appendix A, after ViTDet (arXiv 2203.16527). The results equal those
of the released code; `vit_attention` lists what is computed differently.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from textsam.modeling.config import SamConfig, ViTConfig
from textsam.modeling.layers import DropPath, LayerNorm2d, drop_path_rates
from textsam.modeling.vit_attention import RelativeAttention

__all__ = ["ImageEncoderViT", "ImageFeatures", "ViTBlock", "build_neck", "check_pixels"]

_NORM_EPS = 1e-6  # as in the released code; PyTorch's default is 1e-5


@dataclass(frozen=True, kw_only=True)
class ImageFeatures:
    """What an image encoder returns: features of B images in the padded square model frame.

    Attributes:
        embedding: (B, C, s, s) at stride 16; every encoder has it.
        skips: Maps to add while the decoder upscales: (B, C/4, 2s, 2s) and (B, C/8, 4s, 4s); empty
            for encoders without them.
        pyramid: The backbone's own maps (B, C_i, S / stride, S / stride), finest first, for a dense
            text head that reads them (`textsam.clip.pathway`); empty for plain ViTs.
    """

    embedding: Tensor
    skips: tuple[Tensor, ...] = ()
    pyramid: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        """Number of images B."""
        return len(self.embedding)

    def __getitem__(self, index: int | slice | Tensor) -> ImageFeatures:
        """Select images; an int keeps the batch axis, so the result is always batched."""
        if isinstance(index, int):
            index = slice(index, index + 1)
        return ImageFeatures(
            embedding=self.embedding[index],
            skips=tuple(x[index] for x in self.skips),
            pyramid=tuple(x[index] for x in self.pyramid),
        )

    def of_prompts(self, image_index: Tensor) -> ImageFeatures:
        """Repeat the features for each prompt, given the index of its image, (P,) int64.

        The pyramid is left out, since the decoder does not read it.
        """
        maps = (self.embedding, *self.skips)
        if len(self) == 1:
            # A view, not a copy: 100 prompts on one image need no more memory than one.
            maps = tuple(x.expand(len(image_index), -1, -1, -1) for x in maps)
        else:
            maps = tuple(x[image_index] for x in maps)
        return ImageFeatures(embedding=maps[0], skips=maps[1:])


class ViTBlock(nn.Module):
    """Pre-norm attention and MLP, each with a residual connection."""

    def __init__(self, config: ViTConfig, *, size: int, drop_path: float = 0.0) -> None:
        """Build one block.

        Args:
            config: Sizes of the encoder.
            size: Side of the squares inside which tokens attend: a window, or the whole grid.
            drop_path: Probability of dropping a branch while training.
        """
        super().__init__()
        width, hidden = config.width, int(config.width * config.mlp_ratio)
        self.norm1 = nn.LayerNorm(width, eps=_NORM_EPS)
        self.attention = RelativeAttention(width, config.heads, size=size)
        self.norm2 = nn.LayerNorm(width, eps=_NORM_EPS)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, h, w, C) in and out."""
        x = x + self.drop_path(self.attention(self.norm1(x)))
        return x + torch.as_tensor(self.drop_path(self.mlp(self.norm2(x))))


class ImageEncoderViT(nn.Module):
    """ViT-B, ViT-L, ViT-H or any other size of `ViTConfig`."""

    def __init__(self, config: SamConfig) -> None:
        """Build the encoder for one image size; the relative positions start at zero."""
        super().__init__()
        vit = config.encoder
        if not isinstance(vit, ViTConfig):
            raise ValueError(f"ImageEncoderViT needs a ViTConfig, got {type(vit).__name__}")
        if vit.patch_size * config.embedding_size != config.image_size:
            raise ValueError(
                f"patches of {vit.patch_size} do not cut an image of {config.image_size} into an "
                f"embedding of {config.embedding_size}: use patch_size=16 and a multiple of 16"
            )
        self.image_size = config.image_size
        grid = config.embedding_size
        self.patch_embed = nn.Conv2d(3, vit.width, vit.patch_size, stride=vit.patch_size)
        self.position_embedding = nn.Parameter(torch.zeros(1, grid, grid, vit.width))
        nn.init.trunc_normal_(self.position_embedding, std=0.02)
        rates = drop_path_rates(vit.drop_path, vit.depth)
        self.blocks = nn.ModuleList(
            ViTBlock(
                vit,
                size=grid if index in vit.global_attention_indexes else vit.window_size,
                drop_path=rates[index],
            )
            for index in range(vit.depth)
        )
        self.neck = build_neck(vit.width, config.embed_dim)

    def forward(self, pixels: Tensor) -> ImageFeatures:
        """Encode normalised, padded images (B, 3, S, S) in the model frame, S = `image_size`.

        Raises:
            ValueError: The images have another size, for which there are no position embeddings.
        """
        check_pixels(pixels, self.image_size)
        x = self.patch_embed(pixels).permute(0, 2, 3, 1) + self.position_embedding
        for block in self.blocks:
            x = block(x)
        return ImageFeatures(embedding=self.neck(x.permute(0, 3, 1, 2)))


def check_pixels(pixels: Tensor, side: int) -> None:
    """Raise a ValueError unless pixels are (B, 3, side, side)."""
    if pixels.ndim != 4 or pixels.shape[1:] != (3, side, side):
        raise ValueError(
            f"pixels have shape {tuple(pixels.shape)}, this encoder takes (B, 3, {side}, {side}): "
            "call Sam.preprocess, which pads to the square"
        )


def build_neck(width: int, channels: int) -> nn.Sequential:
    """1x1 and 3x3 convolution, each normalised: (B, width, s, s) -> (B, channels, s, s)."""
    return nn.Sequential(
        nn.Conv2d(width, channels, 1, bias=False),
        LayerNorm2d(channels),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        LayerNorm2d(channels),
    )
