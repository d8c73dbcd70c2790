"""TinyViT as MobileSAM's image encoder, `vit_t`.

TinyViT (arXiv 2207.10666): a stem and a first stage of convolutions, then three stages of window
attention. MobileSAM (arXiv 2306.14289) distilled Segment Anything's ViT-H into TinyViT-5M. As in
the released code, its last stage keeps stride 16, and the ViT's neck replaces the classifier.

Three things differ from the released code without changing the result: any image size that is a
multiple of 16 works (theirs is fixed to a 64 x 64 embedding), the unused ImageNet classifier is
left out, and windows at the border are not padded where their output is unused.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn, unflatten

from textsam.modeling.config import SamConfig, TinyViTConfig
from textsam.modeling.image_encoder import ImageFeatures, build_neck, check_pixels
from textsam.modeling.layers import DropPath, drop_path_rates
from textsam.modeling.vit_attention import map_windows, pad_keys

__all__ = ["TinyViT"]

# Strides between the four stages. The stem has stride 4, so the last two stages are at stride 16.
_MERGE_STRIDES = (2, 2, 1)


class ConvNorm(nn.Module):
    """Convolution without bias, then batch norm."""

    def __init__(
        self, inputs: int, outputs: int, *, kernel: int = 1, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False
        )
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, outputs, h / stride, w / stride)."""
        return torch.as_tensor(self.norm(self.conv(x)))


class InvertedResidual(nn.Module):
    """MobileNetV2's block: widen, filter each channel by 3x3, narrow, add."""

    def __init__(self, width: int, *, expansion: float, drop_path: float) -> None:
        super().__init__()
        hidden = int(width * expansion)
        self.expand = ConvNorm(width, hidden)
        self.depthwise = ConvNorm(hidden, hidden, kernel=3, groups=hidden)
        self.project = ConvNorm(hidden, width)
        nn.init.zeros_(self.project.norm.weight)  # as released: the block starts as the identity
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) in and out."""
        branch = F.gelu(self.depthwise(F.gelu(self.expand(x))))
        return F.gelu(x + self.drop_path(self.project(branch)))


class Merge(nn.Module):
    """Transition to the next stage: another width, and half the resolution at stride 2."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.expand = ConvNorm(inputs, outputs)
        self.depthwise = ConvNorm(outputs, outputs, kernel=3, stride=stride, groups=outputs)
        self.project = ConvNorm(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, outputs, h / stride, w / stride)."""
        return torch.as_tensor(self.project(F.gelu(self.depthwise(F.gelu(self.expand(x))))))


class BiasedAttention(nn.Module):
    """Multi-head attention in windows with one learned bias per head and distance.

    The bias depends on the absolute offsets |y - k| and |x - l| of query and key only.
    """

    distances: Tensor

    def __init__(self, width: int, heads: int, *, window: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of {heads} heads")
        self.heads = heads
        self.window = window
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.biases = nn.Parameter(torch.zeros(heads, window * window))
        index = torch.arange(window)
        apart = (index[:, None] - index[None, :]).abs()
        # Axes: query row, query column, key row, key column.
        distances = apart[:, None, :, None] * window + apart[None, :, None, :]
        self.register_buffer("distances", distances, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Attend; tokens (B, h, w, C) in and out."""
        qkv = unflatten(self.qkv(self.norm(x)), -1, (self.heads, 3, -1))
        return torch.as_tensor(self.proj(map_windows(qkv, self.window, self._attend)))

    def _attend(self, qkv: Tensor) -> Tensor:
        """Attend in windows of one shape: (n, wy, wx, heads, 3, d) -> (n, wy, wx, heads * d)."""
        high, wide = qkv.shape[1:3]
        q, k, v = qkv.permute(4, 0, 3, 1, 2, 5).unbind()
        if (high, wide) != (self.window, self.window):
            # The released code pads zero tokens before the norm, which turns them into its bias.
            padding = unflatten(self.qkv(self.norm.bias), 0, (self.heads, 3, -1))
            k = pad_keys(k, padding[:, 1], self.window)
            v = pad_keys(v, padding[:, 2], self.window)
        bias = self.biases[:, self.distances[:high, :wide]].flatten(3).flatten(1, 2)
        q, k, v = (t.flatten(2, 3) for t in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        return unflatten(out.transpose(1, 2), 1, (high, wide)).flatten(3)


class TinyViTBlock(nn.Module):
    """Window attention, a depthwise 3x3 convolution across windows, and an MLP."""

    def __init__(
        self, width: int, heads: int, *, window: int, mlp_ratio: float, drop_path: float
    ) -> None:
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.attention = BiasedAttention(width, heads, window=window)
        self.local_conv = ConvNorm(width, width, kernel=3, groups=width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)
        )
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) in and out."""
        tokens: Tensor = x.permute(0, 2, 3, 1)
        tokens = tokens + self.drop_path(self.attention(tokens))
        tokens = self.local_conv(tokens.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        tokens = tokens + self.drop_path(self.mlp(tokens))
        return tokens.permute(0, 3, 1, 2)


class Stage(nn.Module):
    """Blocks of one resolution, then the transition to the next stage if there is one."""

    def __init__(self, blocks: list[nn.Module], merge: Merge | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.merge = merge

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C', h', w')."""
        for block in self.blocks:
            x = block(x)
        return x if self.merge is None else cast(Tensor, self.merge(x))


class TinyViT(nn.Module):
    """Stem, four stages and the neck: stride 16, `embed_dim` channels."""

    def __init__(self, config: SamConfig) -> None:
        """Build the encoder for one image size."""
        super().__init__()
        tiny = config.encoder
        if not isinstance(tiny, TinyViTConfig):
            raise ValueError(f"TinyViT needs a TinyViTConfig, got {type(tiny).__name__}")
        sizes = (tiny.widths, tiny.depths, tiny.heads, tiny.window_sizes)
        if any(len(size) != 4 for size in sizes):
            raise ValueError(f"TinyViT has four stages; got sizes for {[len(s) for s in sizes]}")
        if config.image_size % 16:
            raise ValueError(f"image_size is {config.image_size}; it must be a multiple of 16")
        self.image_size = config.image_size
        stem = tiny.widths[0]
        self.stem = nn.Sequential(
            ConvNorm(3, stem // 2, kernel=3, stride=2),
            nn.GELU(),
            ConvNorm(stem // 2, stem, kernel=3, stride=2),
        )
        self.stages = nn.ModuleList(_build_stages(tiny))
        self.neck = build_neck(tiny.widths[-1], config.embed_dim)
        self._early = {1} if config.hq else set()  # the stage that light SAM-HQ reads

    def forward(self, pixels: Tensor) -> ImageFeatures:
        """Encode normalised, padded images (B, 3, S, S) in the model frame, S = `image_size`."""
        check_pixels(pixels, self.image_size)
        # Channels last is the faster layout for these convolutions on a CPU.
        x = self.stem(pixels.contiguous(memory_format=torch.channels_last))
        early: list[Tensor] = []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in self._early:
                early.append(x)
        return ImageFeatures(embedding=self.neck(x), pyramid=tuple(early))


def _build_stages(tiny: TinyViTConfig) -> list[Stage]:
    rates = iter(drop_path_rates(tiny.drop_path, sum(tiny.depths)))
    stages = []
    for index, (width, depth) in enumerate(zip(tiny.widths, tiny.depths, strict=True)):
        blocks: list[nn.Module] = []
        for _ in range(depth):
            if index == 0:
                block: nn.Module = InvertedResidual(
                    width, expansion=tiny.conv_expansion, drop_path=next(rates)
                )
            else:
                block = TinyViTBlock(
                    width,
                    tiny.heads[index],
                    window=tiny.window_sizes[index],
                    mlp_ratio=tiny.mlp_ratio,
                    drop_path=next(rates),
                )
            blocks.append(block)
        merge = None
        if index < len(tiny.widths) - 1:
            merge = Merge(width, tiny.widths[index + 1], stride=_MERGE_STRIDES[index])
        stages.append(Stage(blocks, merge))
    return stages
