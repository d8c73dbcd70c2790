"""Outlines of masks from their maps of probabilities, combined over many masks and thinned."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from textsam.inference.photo.encoded import to_original_frame
from textsam.values.geometry import Frame

Floats = NDArray[np.float32]
Window = tuple[int, int, int, int]  # x0, y0, x1, y1
Margins = tuple[int, int, int, int]  # left, top, right, bottom

# Size of the logits of several masks at the size of the photo; about six such tensors are in memory
# at the same time.
_UPSCALED_BYTES = 16 * 1024 * 1024


class MaxOutlines:
    """The strongest outline at each pixel, as in the paper.

    `add` takes outlines (K, 2, h, w) of K masks in a window x0, y0, x1, y1 of the photo.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self._strength = torch.zeros(size)
        self._gradient = torch.zeros(2, *size)

    def start_view(self, window: Window) -> None:
        """Nothing to do: a maximum does not depend on the number of views."""

    def add(self, gradients: Tensor, window: Window) -> None:
        """Take the outlines of masks in a window."""
        x0, y0, x1, y1 = window
        strength = self._strength[y0:y1, x0:x1]  # tensor views, so writing to them is kept
        gradient = self._gradient[:, y0:y1, x0:x1]
        own, index = _lengths(gradients).max(0)
        chosen = gradients.gather(0, index.expand(1, 2, *own.shape))[0]
        better = own > strength
        strength[better] = own[better]
        gradient[:, better] = chosen[:, better]

    def result(self) -> tuple[Floats, Floats]:
        """Strength (H, W), of which the largest is 1, and that outline's gradient (2, H, W)."""
        top = self._strength.max()
        strength = self._strength / top if top > 0 else self._strength
        return strength.numpy(), self._gradient.numpy()


class SumOutlines:
    """The sum over masks, averaged over views: an edge is where many masks have an outline.

    Args:
        size: (H, W) of the photo.
        unit: Pixels over which a change of probability is measured. Maps are less steep in larger
            photos, so it should grow with them.
    """

    def __init__(self, size: tuple[int, int], *, unit: float = 1.0) -> None:
        self._unit = unit
        self._sum = torch.zeros(size)
        # Structure tensor of the gradients: sums of xx, xy and yy.
        self._tensor = torch.zeros(3, *size)
        self._views = torch.zeros(size)

    def start_view(self, window: Window) -> None:
        """Count a view: the whole photo, its mirror image or a crop."""
        x0, y0, x1, y1 = window
        self._views[y0:y1, x0:x1] += 1

    def add(self, gradients: Tensor, window: Window) -> None:
        """Take the outlines of masks in a window, as `MaxOutlines.add`."""
        x0, y0, x1, y1 = window
        lengths = _lengths(gradients)
        self._sum[y0:y1, x0:x1] += lengths.sum(0)
        unit = gradients / lengths.clamp(min=1e-12)[:, None]
        x, y = unit[:, 0], gradients[:, 1]
        parts = (x * gradients[:, 0], x * y, unit[:, 1] * y)
        self._tensor[:, y0:y1, x0:x1] += torch.stack([part.sum(0) for part in parts])

    def result(self) -> tuple[Floats, Floats]:
        """Strength (H, W), below 1, and direction across the edge (2, H, W), x and y.

        The strength is sqrt(m / (m + 1)) for the mean m over views. m is 1 where every view has one
        mask whose probability changes from 0 to 1 within a unit.
        """
        # The main axis of the gradients, not their sum: two objects that touch have opposite
        # gradients at their common border.
        xx, xy, yy = self._tensor
        angle = torch.atan2(2 * xy, xx - yy) / 2
        mean = self._unit * self._sum / self._views.clamp(min=1)
        strength = (mean / (mean + 1)).sqrt()
        return strength.numpy(), torch.stack([angle.cos(), angle.sin()]).numpy()


def add_outlines(
    outlines: MaxOutlines | SumOutlines,
    logits: Tensor,  # (N, m, m) of the padded frame, not thresholded
    frame: Frame,  # of the window
    *,
    window: Window,  # half-open, original pixels
    reach: int = 1,  # see `outline_gradients`
    margins: Margins = (0, 0, 0, 0),  # pixels to leave out at the window's border
    mirrored: bool = False,  # whether the masks are of the mirror image of the window
) -> None:
    """Add the outlines of masks, upscaling a few masks at a time."""
    left, top, right, bottom = margins
    x0, y0, x1, y1 = window
    inner = (x0 + left, y0 + top, x1 - right, y1 - bottom)
    if inner[0] >= inner[2] or inner[1] >= inner[3]:
        return
    outlines.start_view(inner)
    height, width = frame.size
    step = max(1, _UPSCALED_BYTES // (4 * height * width))
    for start in range(0, len(logits), step):
        full = to_original_frame(logits[start : start + step], frame)
        gradients = outline_gradients(full.flip(-1) if mirrored else full, reach=reach)
        outlines.add(gradients[..., top : height - bottom, left : width - right], inner)


def smooth_logits(logits: Tensor, side: int) -> Tensor:
    """Mean over a square of `side` cells (odd) around each cell: (N, m, m) -> (N, m, m)."""
    pad = side // 2
    padded = F.pad(logits[:, None], (pad, pad, pad, pad), mode="replicate")
    return F.avg_pool2d(padded, side, stride=1)[:, 0]


def outline_gradients(logits: Tensor, *, reach: int = 1) -> Tensor:
    """Gradients of probability maps near the outer boundaries of their masks (Appendix D.2).

    Logits (K, H, W) at the photo's size -> (K, 2, H, W) x and y, toward the inside of the mask; 0
    farther than `reach` pixels from an outer boundary pixel.
    """
    inside = (logits > 0).float()[:, None]
    outer = F.max_pool2d(inside, 3, stride=1, padding=1) - inside
    side = 2 * reach + 1
    near = F.max_pool2d(outer, side, stride=1, padding=reach)
    return sobel(logits.sigmoid()) * near


def sobel(maps: Tensor) -> Tensor:
    """Sobel filter: (K, H, W) -> (K, 2, H, W), change per pixel along x and y."""
    # Replicated at the border, so that the border of the photo is not an edge.
    padded = F.pad(maps[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    rows = (padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 4
    columns = (padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]) / 4
    x = (rows[..., 2:] - rows[..., :-2]) / 2
    y = (columns[:, 2:] - columns[:, :-2]) / 2
    return torch.stack([x, y], dim=1)


def thin_edges(strength: Floats, gradient: Floats) -> Floats:
    """Non-maximum suppression across the edge, as in Canny's detector.

    A pixel stays if it is stronger than the two points one step along its gradient and against it,
    which are interpolated between neighbours; others become 0. Strength (H, W) and gradient
    (2, H, W), x and y, of which only the direction matters -> (H, W).
    """
    height, width = strength.shape
    # Of the two directions of a line take the one to the right, so that ties are broken alike
    # whichever way the gradients of the neighbours point.
    turned = (gradient[0] < 0) | ((gradient[0] == 0) & (gradient[1] < 0))
    x, y = np.where(turned, -gradient, gradient)
    rows, columns = np.nonzero(strength > 0)
    x, y = x[rows, columns], y[rows, columns]
    flat = np.abs(x) >= np.abs(y)
    major, minor = np.where(flat, x, y), np.where(flat, y, x)
    share = np.abs(minor) / np.maximum(np.abs(major), np.finfo(np.float32).tiny)
    sign_x, sign_y = np.where(x < 0, -1, 1), np.where(y < 0, -1, 1)
    padded = np.pad(strength, 1)

    def neighbour(step: int) -> Floats:
        """Strength one step along the gradient (1) or against it (-1)."""
        step_x, step_y = step * sign_x, step * sign_y
        straight = padded[
            rows + 1 + np.where(flat, 0, step_y), columns + 1 + np.where(flat, step_x, 0)
        ]
        diagonal = padded[rows + 1 + step_y, columns + 1 + step_x]
        mixed: Floats = (1 - share) * straight + share * diagonal
        return mixed

    own = strength[rows, columns]
    # One strict and one not: of two equal neighbours exactly one stays.
    crest = (own > neighbour(-1)) & (own >= neighbour(1))
    thinned = np.zeros((height, width), np.float32)
    thinned[rows[crest], columns[crest]] = own[crest]
    return thinned


def ridges(strength: Floats, scale: float) -> Floats:
    """Strength of a ridge at each pixel: minus the lower eigenvalue of the Hessian of the map.

    This also finds a faint line on the slope of a strong one, where it is not a maximum. Second
    derivatives of Gaussians of this standard deviation in pixels, times its square (Lindeberg, IJCV
    1998). (H, W) -> (H, W), 0 where the map is convex.
    """
    radius = math.ceil(4 * scale)
    at = torch.arange(-radius, radius + 1, dtype=torch.float32)
    flat = torch.exp(-(at**2) / (2 * scale**2))
    flat /= flat.sum()
    slope, bend = -at / scale**2 * flat, (at**2 / scale**4 - 1 / scale**2) * flat
    # Sampling the kernel leaves a small sum; without it a flat map has no curvature.
    bend -= bend.sum() * flat
    image = torch.from_numpy(strength)[None, None]
    padded = F.pad(image, (radius, radius, radius, radius), mode="replicate")

    def filtered(down: torch.Tensor, across: torch.Tensor) -> torch.Tensor:
        rows = F.conv2d(padded, down[None, None, :, None])
        return F.conv2d(rows, across[None, None, None, :])[0, 0]

    xx, yy, xy = filtered(flat, bend), filtered(bend, flat), filtered(slope, slope)
    lower = (xx + yy) / 2 - (((xx - yy) / 2) ** 2 + xy**2).sqrt()
    strengths: Floats = ((-lower).clamp(min=0) * scale**2).numpy()
    return strengths


def _lengths(gradients: Tensor) -> Tensor:
    return gradients.square().sum(1).sqrt()
