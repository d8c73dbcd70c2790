"""Outlines of masks, from their maps of probabilities, and what many masks say together."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from textsam.inference.photo.postprocess import to_original_frame
from textsam.values.geometry import Frame

__all__ = [
    "Agreement",
    "Margins",
    "Outlines",
    "Strongest",
    "add_outlines",
    "outline_gradients",
    "smooth_logits",
    "sobel",
]

Floats = NDArray[np.float32]
Window = tuple[int, int, int, int]  # x0, y0, x1, y1
Margins = tuple[int, int, int, int]  # left, top, right, bottom

# Of one float map of several masks at the photo's size; some six of them are there at a time.
_UPSCALED_BYTES = 16 * 1024 * 1024


class Outlines(Protocol):
    """What is kept of the outlines of many masks."""

    def look(self, window: Window) -> None:
        """Begin with the masks of a window x0, y0, x1, y1 of the photo."""

    def add(self, gradients: Tensor, window: Window) -> None:
        """Take outlines (K, 2, h, w) of a window x0, y0, x1, y1 of the photo."""

    def result(self) -> tuple[Floats, Floats]:
        """Strength (H, W), 0 to 1, and the direction across the edge (2, H, W), x and y."""


class Strongest:
    """The paper's way: at each pixel the outline of the one mask that has the strongest there."""

    def __init__(self, size: tuple[int, int]) -> None:
        self._strength = torch.zeros(size)
        self._gradient = torch.zeros(2, *size)

    def look(self, window: Window) -> None:
        """Nothing to do: the strongest of many windows is the strongest."""

    def add(self, gradients: Tensor, window: Window) -> None:
        """See `Outlines`."""
        x0, y0, x1, y1 = window
        strength = self._strength[y0:y1, x0:x1]  # views: what is written there stays
        gradient = self._gradient[:, y0:y1, x0:x1]
        own, index = _lengths(gradients).max(0)
        chosen = gradients.gather(0, index.expand(1, 2, *own.shape))[0]
        better = own > strength
        strength[better] = own[better]
        gradient[:, better] = chosen[:, better]

    def result(self) -> tuple[Floats, Floats]:
        """The strongest of the photo is 1; the gradient is that of the mask."""
        top = self._strength.max()
        strength = self._strength / top if top > 0 else self._strength
        return strength.numpy(), self._gradient.numpy()


class Agreement:
    """The sum over all masks, a mean over the looks: an edge is where many have an outline.

    Args:
        size: (H, W) of the photo.
        unit: Pixels over which a change of probability is measured. Maps are less steep in larger
            photos, so it grows with them.
    """

    def __init__(self, size: tuple[int, int], *, unit: float = 1.0) -> None:
        self._unit = unit
        self._sum = torch.zeros(size)
        self._tensor = torch.zeros(3, *size)  # of the gradients: sums of xx, xy and yy
        self._looks = torch.zeros(size)

    def look(self, window: Window) -> None:
        """See `Outlines`."""
        x0, y0, x1, y1 = window
        self._looks[y0:y1, x0:x1] += 1

    def add(self, gradients: Tensor, window: Window) -> None:
        """See `Outlines`."""
        x0, y0, x1, y1 = window
        lengths = _lengths(gradients)
        self._sum[y0:y1, x0:x1] += lengths.sum(0)
        unit = gradients / lengths.clamp(min=1e-12)[:, None]
        x, y = unit[:, 0], gradients[:, 1]
        parts = (x * gradients[:, 0], x * y, unit[:, 1] * y)
        self._tensor[:, y0:y1, x0:x1] += torch.stack([part.sum(0) for part in parts])

    def result(self) -> tuple[Floats, Floats]:
        """The direction is the main axis of the gradients, for those of neighbours are opposite.

        The strength is the root of m / (m + 1) for a mean m. Few edges reach a large one; m is 1
        where each look has one mask that changes from 0 to 1 within a unit.
        """
        xx, xy, yy = self._tensor
        angle = torch.atan2(2 * xy, xx - yy) / 2
        mean = self._unit * self._sum / self._looks.clamp(min=1)
        strength = (mean / (mean + 1)).sqrt()
        return strength.numpy(), torch.stack([angle.cos(), angle.sin()]).numpy()


def add_outlines(
    outlines: Outlines,
    logits: Tensor,
    frame: Frame,
    *,
    window: Window,
    reach: int = 1,
    margins: Margins = (0, 0, 0, 0),
    mirrored: bool = False,
) -> None:
    """Add the outlines of masks, few of them at the photo's size at a time.

    Args:
        outlines: Takes them.
        logits: (N, m, m) of the padded frame, unthresholded.
        frame: Of the window.
        window: x0, y0, x1, y1, half-open pixels of the photo.
        reach: See `outline_gradients`.
        margins: Pixels at the window's left, top, right and bottom that are left out.
        mirrored: Whether the masks are of the window's mirror image, left and right exchanged.
    """
    left, top, right, bottom = margins
    x0, y0, x1, y1 = window
    inner = (x0 + left, y0 + top, x1 - right, y1 - bottom)
    if inner[0] >= inner[2] or inner[1] >= inner[3]:
        return
    outlines.look(inner)
    height, width = frame.size
    step = max(1, _UPSCALED_BYTES // (4 * height * width))
    for start in range(0, len(logits), step):
        full = to_original_frame(logits[start : start + step], frame)
        found = outline_gradients(full.flip(-1) if mirrored else full, reach=reach)
        outlines.add(found[..., top : height - bottom, left : width - right], inner)


def smooth_logits(logits: Tensor, side: int) -> Tensor:
    """Mean over a square of `side` cells (odd) around each cell: (N, m, m) -> (N, m, m)."""
    pad = side // 2
    padded = F.pad(logits[:, None], (pad, pad, pad, pad), mode="replicate")
    return F.avg_pool2d(padded, side, stride=1)[:, 0]


def outline_gradients(logits: Tensor, *, reach: int = 1) -> Tensor:
    """Gradients of the maps of probabilities where they meet their masks' outer boundaries.

    Args:
        logits: (K, H, W) at the photo's size; positive inside a mask.
        reach: Pixels from an outer boundary pixel within which a gradient counts.

    Returns:
        (K, 2, H, W) x and y, toward the inside of the mask; 0 away from its outer boundary.
    """
    inside = (logits > 0).float()[:, None]
    outer = F.max_pool2d(inside, 3, stride=1, padding=1) - inside
    side = 2 * reach + 1
    near = F.max_pool2d(outer, side, stride=1, padding=reach)
    return sobel(logits.sigmoid()) * near


def sobel(maps: Tensor) -> Tensor:
    """Sobel filter: (K, H, W) -> (K, 2, H, W), change per pixel along x and y.

    What lies beyond the border is as the pixel at the border, so that a border is no edge.
    """
    padded = F.pad(maps[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    rows = (padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 4
    columns = (padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]) / 4
    x = (rows[..., 2:] - rows[..., :-2]) / 2
    y = (columns[:, 2:] - columns[:, :-2]) / 2
    return torch.stack([x, y], dim=1)


def _lengths(gradients: Tensor) -> Tensor:
    return gradients.square().sum(1).sqrt()
