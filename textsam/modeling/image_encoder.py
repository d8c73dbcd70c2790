"""Image encoders: Segment Anything's plain ViT, and any `timm` backbone with a pyramid neck.

The ViT has windows and four global blocks (arXiv 2304.02643, Section 3 and Appendix A, after
ViTDet, arXiv 2203.16527). The results equal those of the released code; `vit_attention` lists what
is computed differently. `timm` backbones are an addition of textsam; the decoder may add their maps
at strides 8 and 4 while it upscales, as SAM 2 does (arXiv 2408.00714, Section 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textsam.modeling.config import SamConfig, TimmConfig, ViTConfig
from textsam.modeling.efficientnet_lite import EFFICIENTNET_LITE0, EfficientNetLite0
from textsam.modeling.layers import (
    DropPath,
    LayerNorm2d,
    drop_path_rates,
    no_random_fill,
    residual_blocks,
)
from textsam.modeling.vit_attention import RelativeAttention

_NORM_EPS = 1e-6  # as in the released code; PyTorch's default is 1e-5


@dataclass(frozen=True, kw_only=True)
class ImageFeatures:
    """What an image encoder returns: features of B images in the padded square model frame.

    Attributes:
        embedding: (B, C, s, s) at stride 16; every encoder has it.
        skips: Maps to add while the decoder upscales: (B, C/4, 2s, 2s) and (B, C/8, 4s, 4s); empty
            for encoders without them.
        pyramid: The backbone's own maps (B, C_i, S / stride, S / stride), finest first, for a dense
            text head that reads them (`textsam.clip.pathway`); empty for plain ViTs. For SAM-HQ the
            encoder's early features alone, (B, C_0, s, s), until `detail` is made of them.
        detail: (B, C/8, 4s, 4s), what SAM-HQ adds to the features of its mask; None without it.
    """

    embedding: Tensor
    skips: tuple[Tensor, ...] = ()
    pyramid: tuple[Tensor, ...] = ()
    detail: Tensor | None = None

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
            detail=None if self.detail is None else self.detail[index],
        )

    @classmethod
    def join(cls, parts: Sequence[ImageFeatures]) -> ImageFeatures:
        """Several as one batch; without the pyramid, which the decoder does not read."""
        if len(parts) == 1:
            return parts[0]
        details = [part.detail for part in parts if part.detail is not None]
        return cls(
            embedding=torch.cat([part.embedding for part in parts]),
            skips=tuple(map(torch.cat, zip(*(part.skips for part in parts), strict=True))),
            detail=torch.cat(details) if details else None,
        )

    def of_prompts(self, image_index: Tensor) -> ImageFeatures:
        """Repeat the features for each prompt, given the index of its image, (P,) int64.

        The pyramid is left out, since the decoder does not read it.
        """
        maps = (self.embedding, *self.skips, *(() if self.detail is None else (self.detail,)))
        if len(self) == 1:
            # A view, not a copy: 100 prompts on one image need no more memory than one.
            maps = tuple(x.expand(len(image_index), -1, -1, -1) for x in maps)
        else:
            maps = tuple(x[image_index] for x in maps)
        skips = maps[1 : 1 + len(self.skips)]
        detail = None if self.detail is None else maps[-1]
        return ImageFeatures(embedding=maps[0], skips=skips, detail=detail)


class ViTBlock(nn.Module):
    """Pre-norm attention and MLP, each with a residual connection."""

    def __init__(self, config: ViTConfig, *, size: int, drop_path: float = 0.0) -> None:
        """Tokens attend inside squares of side `size`: a window, or the whole grid."""
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
        # SAM-HQ reads the output of the first global block.
        self._early = {min(vit.global_attention_indexes)} if config.hq else set()

    def forward(self, pixels: Tensor) -> ImageFeatures:
        """Encode normalised, padded images (B, 3, S, S) in the model frame, S = `image_size`."""
        check_pixels(pixels, self.image_size)
        x = self.patch_embed(pixels).permute(0, 2, 3, 1) + self.position_embedding
        early: list[Tensor] = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self._early:
                early.append(x.permute(0, 3, 1, 2))
        return ImageFeatures(embedding=self.neck(x.permute(0, 3, 1, 2)), pyramid=tuple(early))


def check_pixels(pixels: Tensor, side: int) -> None:
    """Raise a ValueError unless pixels are (B, 3, side, side)."""
    if pixels.ndim != 4 or pixels.shape[1:] != (3, side, side):
        raise ValueError(
            f"pixels have shape {tuple(pixels.shape)}, this encoder takes (B, 3, {side}, {side}): "
            "call Sam.preprocess, which pads to the square"
        )


def normalise(images: Sequence[Tensor], *, side: int, mean: Tensor, std: Tensor) -> Tensor:
    """Normalise B images (3, h, w) and pad them to (B, 3, side, side), as `Core.preprocess`."""
    batch = torch.zeros(len(images), 3, side, side, device=mean.device)
    for row, image in zip(batch, images, strict=True):
        height, width = image.shape[-2:]
        if max(height, width) > side:
            raise ValueError(
                f"image is {height} x {width} pixels, the model frame is {side}: resize the "
                "long side first (textsam.values.geometry.Frame)"
            )
        # Padding stays 0 after normalisation, as the released models were trained.
        row[:, :height, :width] = (image.to(batch) - mean) / std
    return batch


def build_neck(width: int, channels: int) -> nn.Sequential:
    """1x1 and 3x3 convolution, each normalised: (B, width, s, s) -> (B, channels, s, s)."""
    return nn.Sequential(
        nn.Conv2d(width, channels, 1, bias=False),
        LayerNorm2d(channels),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        LayerNorm2d(channels),
    )


_PYRAMID_STRIDES = (8, 16, 32)
_SKIP_STRIDES = (8, 4)


class TimmEncoder(nn.Module):
    """A `timm` backbone, a neck to one stride-16 embedding and skip projections."""

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        if not isinstance(config.encoder, TimmConfig):
            raise ValueError(f"TimmEncoder needs a TimmConfig, got {type(config.encoder).__name__}")
        dim, name = config.embed_dim, config.encoder.name
        self.backbone = _build_backbone(name)
        info: Any = self.backbone.feature_info
        self.strides: tuple[int, ...] = tuple(info.reduction())
        channels = dict(zip(self.strides, info.channels(), strict=True))
        self.fused = tuple(s for s in self.strides if s in _PYRAMID_STRIDES)
        if 16 not in self.fused:
            raise ValueError(f"timm model {name!r} has strides {self.strides}; one must be 16")
        self.laterals = nn.ModuleDict(
            {str(s): _lateral(channels[s], dim, stride=s) for s in self.fused}
        )
        depth = config.encoder.context_depth
        self.context = (
            _GlobalContext(channels[self.strides[-1]], config.encoder.context_width, depth)
            if depth
            else nn.Identity()
        )
        self.blocks = residual_blocks(dim, config.encoder.neck_blocks)
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
        # Depthwise convolutions of a CPU take a fifth less time with channels last.
        self.to(memory_format=torch.channels_last)

    def forward(self, pixels: Tensor) -> ImageFeatures:
        """Encode normalised, padded images (B, 3, S, S)."""
        maps = self._maps(pixels)
        embedding = sum(
            (self._at_stride_16(self.laterals[str(s)](maps[s]), s) for s in self.fused),
            start=torch.zeros((), device=pixels.device, dtype=pixels.dtype),
        )
        return ImageFeatures(
            embedding=self.neck(self.blocks(embedding)),
            skips=tuple(layer(maps[int(s)]) for s, layer in self.skips.items()),
            pyramid=tuple(maps[s] for s in sorted(self.fused)),
        )

    def pyramid(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Maps of `ImageFeatures.pyramid` alone, for images (B, 3, h, w) of any size."""
        maps = self._maps(pixels)
        return tuple(maps[s] for s in sorted(self.fused))

    def _maps(self, pixels: Tensor) -> dict[int, Tensor]:
        *finer, coarsest = self.backbone(pixels)
        return dict(zip(self.strides, [*finer, self.context(coarsest)], strict=True))

    @staticmethod
    def _at_stride_16(x: Tensor, stride: int) -> Tensor:
        if stride == 32:
            return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return x


def _build_backbone(name: str) -> nn.Module:
    """A backbone that returns its maps; our own copy of one if weights will be read into it."""
    if name == EFFICIENTNET_LITE0 and no_random_fill.is_entered():
        return EfficientNetLite0()
    import timm  # slow to import, so only when a timm model is built

    backbone: nn.Module = timm.create_model(name, pretrained=False, features_only=True)
    return backbone


class _GlobalContext(nn.Module):
    """Adds what self-attention over all places finds; starts as the identity.

    Self-attention on the coarsest map alone is cheap, and most of the gain (arXiv 2304.08069,
    Section 4.2). Positions come from a depthwise convolution (arXiv 2102.10882), for any size.
    """

    def __init__(self, channels: int, width: int, depth: int) -> None:
        super().__init__()
        from timm.models.vision_transformer import Block

        self.enter = nn.Sequential(LayerNorm2d(channels), nn.Conv2d(channels, width, 1))
        self.place = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.blocks = nn.Sequential(
            *(Block(width, max(1, width // 32), qkv_bias=True) for _ in range(depth))
        )
        last = nn.Linear(width, channels)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.leave = nn.Sequential(nn.LayerNorm(width), last)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, h, w) in and out."""
        y = self.enter(x)
        y = y + self.place(y)
        found: Tensor = self.leave(self.blocks(y.flatten(2).transpose(1, 2)))
        return torch.add(x, found.transpose(1, 2).unflatten(2, x.shape[-2:]))


def _lateral(channels: int, dim: int, *, stride: int) -> nn.Module:
    """Normalise one map and project it to the neck's width; stride 8 is halved."""
    kernel = 2 if stride == 8 else 1
    return nn.Sequential(LayerNorm2d(channels), nn.Conv2d(channels, dim, kernel, stride=kernel))


def _skip(channels: int, width: int, *, gain: float) -> nn.Module:
    # Backbone maps have a standard deviation of 7 to 8: unnormalised they outweigh the prompt.
    norm = LayerNorm2d(channels)
    nn.init.constant_(norm.weight, gain)
    return nn.Sequential(norm, nn.Conv2d(channels, width, 1))
