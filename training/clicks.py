"""Where a person would click: in the middle of what is wrong, not just anywhere in it.

The paper's training draws points uniformly (Appendix A) and its evaluation clicks the pixel
farthest from the border (Appendix D.1). A short training gains from seeing some of the latter; an
exact distance transform of every error of every round would cost more than the decoder.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .prompting import sample_pixels

__all__ = ["central_pixels", "mixed_pixels"]

_CELL = 4  # pixels; depth is measured on cells of this side
_REACH = (5, 13)  # cells; sides of the two windows that are looked at around a point


def central_pixels(
    region: Tensor, generator: torch.Generator, *, split: Tensor | None = None, tries: int = 6
) -> Tensor:
    """Of several random cells of a region the one deepest inside it.

    Depth is the share of the region in two windows around the cell.

    Args:
        region: (P, S, S) bool; S is a multiple of 4.
        generator: Source of randomness.
        split: (P, S, S) bool; what lies on either side of it is measured apart, e.g. the truth, for
            missed and extra pixels are different errors.
        tries: Of how many cells.

    Returns:
        (P, 2) float x, y, pixels; of a region too thin for any cell a uniform pixel.
    """
    parts = [region] if split is None else [region & split, region & ~split]
    share = torch.stack([F.avg_pool2d(part[:, None].float(), _CELL)[:, 0] for part in parts])
    depth = torch.zeros_like(share)
    for side in _REACH:
        near = F.avg_pool2d(share.flatten(0, 1)[:, None], side, stride=1, padding=side // 2)
        depth += near[:, 0].view_as(share)
    depth = (depth * (share > 0.5)).amax(0).flatten(1)
    cells = share.amax(0).flatten(1) > 0.5
    chance = torch.rand(len(cells), tries, generator=generator).to(region.device)
    running = cells.cumsum(1)
    count = running[:, -1:]
    nth = (chance * count).long()
    drawn = torch.searchsorted(running, nth + 1).clamp(max=cells.shape[1] - 1)
    best = drawn.gather(1, depth.gather(1, drawn).argmax(1, keepdim=True))[:, 0]
    width = share.shape[-1]
    middle = torch.stack([best % width, best // width], dim=1).float() * _CELL + _CELL / 2
    return torch.where(count > 0, middle, sample_pixels(region, generator))


def mixed_pixels(
    region: Tensor, generator: torch.Generator, *, central: float, split: Tensor | None = None
) -> Tensor:
    """Uniform pixels, and for a share `central` of the rows central ones: (P, 2) float x, y."""
    uniform = sample_pixels(region, generator)
    middle = central_pixels(region, generator, split=split)
    pick = (torch.rand(len(region), generator=generator) < central).to(region.device)
    return torch.where(pick[:, None], middle, uniform)
