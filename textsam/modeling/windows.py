"""Cut a grid of tokens into windows, without padding those that ask.

The released encoders (Segment Anything, TinyViT) pad the grid with zero tokens to whole windows.
Such a token still is a key, so it cannot be left out, but nobody reads its output. Here the windows
at the right and bottom border keep their real size, and only their keys and values are padded.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, unflatten

__all__ = ["map_windows", "pad_keys"]


def map_windows(grid: Tensor, window: int, attend: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply `attend` to every window of a grid.

    Args:
        grid: (B, h, w, ...) one value per token; h and w need not be multiples of `window`.
        window: Side of a window in tokens.
        attend: Maps windows (n, wy, wx, ...) to (n, wy, wx, C). It is called once for each shape
            (wy, wx) that occurs: whole windows, and those cut at the right, bottom or both.

    Returns:
        (B, h, w, C).
    """
    bands = []
    for y, wy in _spans(grid.shape[1], window):
        band = []
        for x, wx in _spans(grid.shape[2], window):
            part = unflatten(unflatten(grid[:, y, x], 2, (-1, wx)), 1, (-1, wy)).transpose(2, 3)
            result = unflatten(attend(part.flatten(0, 2)), 0, part.shape[:3])
            band.append(result.transpose(2, 3).flatten(3, 4).flatten(1, 2))
        bands.append(band[0] if len(band) == 1 else torch.cat(band, dim=2))
    return bands[0] if len(bands) == 1 else torch.cat(bands, dim=1)


def pad_keys(keys: Tensor, padding: Tensor, window: int) -> Tensor:
    """Complete the keys (or values) of a border window by those of the padding tokens.

    Args:
        keys: (n, heads, wy, wx, d).
        padding: (heads, d), what a zero token is projected to.
        window: Side of a whole window.

    Returns:
        (n, heads, window, window, d), the real ones at the top left.
    """
    wy, wx = keys.shape[2:4]
    if wy == window and wx == window:
        return keys
    inside = torch.zeros(window, window, 1, dtype=torch.bool, device=keys.device)
    inside[:wy, :wx] = True
    padded = F.pad(keys, (0, 0, 0, window - wx, 0, window - wy))
    return torch.where(inside, padded, padding[:, None, None, :].to(keys.dtype))


def _spans(length: int, window: int) -> list[tuple[slice, int]]:
    """The part of an axis that whole windows cover, then the rest, each with its window's side."""
    whole = length - length % window
    spans = [(slice(0, whole), window), (slice(whole, length), length - whole)]
    return [(span, side) for span, side in spans if span.start < span.stop]
