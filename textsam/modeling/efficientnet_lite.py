"""EfficientNet-Lite0 as timm's `tf_efficientnet_lite0` with `features_only`, without timm.

Importing timm takes a second, longer than all else that `tiny` needs. Weights have timm's names and
the layers are the same calls in the same order, so results are equal to the last bit. Networks that
are trained from random weights come from timm, whose initialisation they have always had.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["EFFICIENTNET_LITE0", "EfficientNetLite0"]

EFFICIENTNET_LITE0 = "tf_efficientnet_lite0"
_EPS = 1e-3  # TensorFlow's, of the weights
_STEM = 32
# Blocks, kernel, stride, expansion and channels of each stage.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_MAPS = (0, 1, 2, 4, 6)  # stages that end a stride: 2, 4, 8, 16, 32


@dataclass(frozen=True)
class MapSizes:
    """Strides and channels of the maps, by timm's names."""

    strides: tuple[int, ...]
    widths: tuple[int, ...]

    def reduction(self) -> list[int]:
        """Strides, finest first."""
        return list(self.strides)

    def channels(self) -> list[int]:
        """Channels, finest map first."""
        return list(self.widths)


class EfficientNetLite0(nn.Module):
    """Pixels (B, 3, H, W) -> five maps at strides 2 to 32, finest first."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = _SameConv(3, _STEM, 3, stride=2)
        self.bn1 = nn.BatchNorm2d(_STEM, _EPS)
        widths = [_STEM, *(stage[-1] for stage in _STAGES)]
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    *(
                        _block(
                            before if index == 0 else after,
                            after,
                            kernel=kernel,
                            stride=stride if index == 0 else 1,
                            expansion=expansion,
                        )
                        for index in range(count)
                    )
                )
                for (count, kernel, stride, expansion, _), (before, after) in zip(
                    _STAGES, pairwise(widths), strict=True
                )
            )
        )
        strides = list(accumulate((stage[2] for stage in _STAGES), lambda a, b: a * b, initial=2))
        self.feature_info = MapSizes(
            strides=tuple(strides[1 + stage] for stage in _MAPS),
            widths=tuple(widths[1 + stage] for stage in _MAPS),
        )

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """The maps."""
        x = F.relu6(self.bn1(self.conv_stem(pixels)), inplace=True)
        maps = []
        for stage, blocks in enumerate(self.blocks):
            x = blocks(x)
            if stage in _MAPS:
                maps.append(x)
        return maps


class _SameConv(nn.Conv2d):
    """A convolution whose output is ceil(side / stride) wide, the larger padding at the end."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1
    ) -> None:
        padding = (kernel - 1) // 2 if stride == 1 else 0
        super().__init__(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, h, w) in and out."""
        if self.stride[0] > 1:
            step, kernel = self.stride[0], self.kernel_size[0]
            y, x_pad = (max((math.ceil(n / step) - 1) * step + kernel - n, 0) for n in x.shape[-2:])
            x = F.pad(x, (x_pad // 2, x_pad - x_pad // 2, y // 2, y - y // 2))
        return super().forward(x)


def _block(inputs: int, outputs: int, *, kernel: int, stride: int, expansion: int) -> nn.Module:
    if expansion == 1:
        return _Separable(inputs, outputs, kernel=kernel, stride=stride)
    return _Inverted(inputs, outputs, kernel=kernel, stride=stride, expansion=expansion)


class _Separable(nn.Module):
    """A depthwise and a pointwise convolution."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int) -> None:
        super().__init__()
        self.skip = stride == 1 and inputs == outputs
        self.conv_dw = _SameConv(inputs, inputs, kernel, stride=stride, groups=inputs)
        self.bn1 = nn.BatchNorm2d(inputs, _EPS)
        self.conv_pw = _SameConv(inputs, outputs, 1)
        self.bn2 = nn.BatchNorm2d(outputs, _EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, h, w) in and out."""
        y = F.relu6(self.bn1(self.conv_dw(x)), inplace=True)
        y = torch.as_tensor(self.bn2(self.conv_pw(y)))
        return y + x if self.skip else y


class _Inverted(nn.Module):
    """Pointwise to more channels, depthwise, pointwise to few (arXiv 1801.04381)."""

    def __init__(
        self, inputs: int, outputs: int, *, kernel: int, stride: int, expansion: int
    ) -> None:
        super().__init__()
        middle = inputs * expansion
        self.skip = stride == 1 and inputs == outputs
        self.conv_pw = _SameConv(inputs, middle, 1)
        self.bn1 = nn.BatchNorm2d(middle, _EPS)
        self.conv_dw = _SameConv(middle, middle, kernel, stride=stride, groups=middle)
        self.bn2 = nn.BatchNorm2d(middle, _EPS)
        self.conv_pwl = _SameConv(middle, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs, _EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, h, w) in and out."""
        y = F.relu6(self.bn1(self.conv_pw(x)), inplace=True)
        y = F.relu6(self.bn2(self.conv_dw(y)), inplace=True)
        y = torch.as_tensor(self.bn3(self.conv_pwl(y)))
        return y + x if self.skip else y
