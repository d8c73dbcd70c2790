"""Layers that several networks share, and a way to build networks without random weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["DropPath", "LayerNorm2d", "drop_path_rates", "no_random_fill", "residual_blocks"]


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of a (B, C, h, w) map."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__(channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise every position over its channels; (B, C, h, w) in and out."""
        # Written out instead of permuted: on a CPU this keeps the channels-last memory layout.
        mean = x.mean(1, keepdim=True)
        centred = x - mean
        scale = torch.rsqrt(centred.square().mean(1, keepdim=True) + self.eps)
        return centred * scale * self.weight[:, None, None] + self.bias[:, None, None]


def residual_blocks(channels: int, depth: int) -> nn.Sequential:
    """ConvNeXt blocks (arXiv 2201.03545) on (B, C, h, w) maps, which start as the identity."""
    if not depth:
        return nn.Sequential()
    from timm.models.convnext import ConvNeXtBlock  # slow to import

    return nn.Sequential(*(ConvNeXtBlock(channels, ls_init_value=0.0) for _ in range(depth)))


class DropPath(nn.Module):
    """Stochastic depth: drop a residual branch for a random part of the batch (arXiv 1603.09382).

    The branches that are kept are scaled up, so that the expected value is the branch itself and
    evaluation needs no correction.
    """

    def __init__(self, rate: float = 0.0) -> None:
        """Drop with probability `rate`; 0 for never."""
        super().__init__()
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"drop path rate is {rate}; it must lie in [0, 1)")
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        """Map (B, ...) to (B, ...): whole rows are zero with probability `rate`."""
        if self.rate == 0.0 or not self.training:
            return branch
        kept = torch.rand(len(branch), device=branch.device) >= self.rate
        scale = kept.to(branch.dtype) / (1.0 - self.rate)
        return branch * scale.view(-1, *[1] * (branch.ndim - 1))

    def extra_repr(self) -> str:
        """Show the rate when the module is printed."""
        return f"rate={self.rate:g}"


def drop_path_rates(last: float, depth: int) -> list[float]:
    """Rates that rise linearly from 0 at the first of `depth` blocks to `last` at the last one."""
    return [last * index / max(depth - 1, 1) for index in range(depth)]


_RANDOM_FILLS = {
    torch.ops.aten.normal_.default,
    torch.ops.aten.uniform_.default,
    torch.ops.aten.bernoulli_.float,
}


class no_random_fill(TorchDispatchMode):  # noqa: N801
    """Context in which random in-place initialisation of tensors does nothing.

    Initialising a small model at random takes longer than loading its checkpoint.
    """

    _depth = 0  # contexts that are entered

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # True, torch's default, makes it import its compiler at the first call, which takes longer
        # than to load the model. Who compiles does not build networks meanwhile.
        return False

    @classmethod
    def is_entered(cls) -> bool:
        """Whether networks are being built for weights that are read."""
        return cls._depth > 0

    def __enter__(self) -> Any:
        """Begin to skip."""
        no_random_fill._depth += 1
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *raised: Any) -> None:
        """Fill again."""
        no_random_fill._depth -= 1
        super().__exit__(*raised)  # type: ignore[no-untyped-call]

    # The meta device would not do: buffers that are computed, not drawn, must have their values.
    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Return the tensor unchanged for random fills, run everything else."""
        return args[0] if func in _RANDOM_FILLS else func(*args, **(kwargs or {}))
