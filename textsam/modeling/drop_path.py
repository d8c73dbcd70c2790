"""Stochastic depth: skip residual branches while training (Huang et al., arXiv 1603.09382)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["DropPath", "drop_path_rates"]


class DropPath(nn.Module):
    """Drop a residual branch for a random part of the batch, and scale up what is kept.

    The mean over the draws equals the branch itself, so evaluation needs no correction.
    """

    def __init__(self, rate: float = 0.0) -> None:
        """Drop with probability `rate`, 0 for never."""
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
