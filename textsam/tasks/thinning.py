"""Lines of one pixel from maps of edges: crests along a direction, and ridges between slopes."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

__all__ = ["ridges", "thin_edges"]

Floats = NDArray[np.float32]


def thin_edges(strength: Floats, gradient: Floats) -> Floats:
    """Keep what is strongest across the edge: Canny's non-maximum suppression.

    The two pixels' worth before and behind a pixel along its gradient are interpolated between the
    neighbours that the direction points between. Of two equal ones side by side one stays,
    whichever way their gradients point.

    Args:
        strength: (H, W), at least 0.
        gradient: (2, H, W) x and y; only the direction counts.

    Returns:
        (H, W) float32: the strength where it is a crest, 0 elsewhere.
    """
    height, width = strength.shape
    # A line has two directions; take the one to the right, so that equals are told apart alike.
    turned = (gradient[0] < 0) | ((gradient[0] == 0) & (gradient[1] < 0))
    x, y = np.where(turned, -gradient, gradient)
    rows, columns = np.nonzero(strength > 0)
    x, y = x[rows, columns], y[rows, columns]
    flat = np.abs(x) >= np.abs(y)
    major, minor = np.where(flat, x, y), np.where(flat, y, x)
    share = np.abs(minor) / np.maximum(np.abs(major), np.finfo(np.float32).tiny)
    sign_x, sign_y = np.where(x < 0, -1, 1), np.where(y < 0, -1, 1)
    padded = np.pad(strength, 1)

    def beside(way: int) -> Floats:
        """Strength one step along the direction, or against it."""
        step_x, step_y = way * sign_x, way * sign_y
        straight = padded[
            rows + 1 + np.where(flat, 0, step_y), columns + 1 + np.where(flat, step_x, 0)
        ]
        diagonal = padded[rows + 1 + step_y, columns + 1 + step_x]
        mixed: Floats = (1 - share) * straight + share * diagonal
        return mixed

    own = strength[rows, columns]
    crest = (own > beside(-1)) & (own >= beside(1))
    thinned = np.zeros((height, width), np.float32)
    thinned[rows[crest], columns[crest]] = own[crest]
    return thinned


def ridges(strength: Floats, scale: float) -> Floats:
    """How much a map is like a ridge at each pixel: minus the lower eigenvalue of its Hessian.

    A faint line beside a strong one lies on its slope and is no maximum there; it bends the map all
    the same. Second derivatives of Gaussians, times the scale's square (Lindeberg, IJCV 1998).

    Args:
        strength: (H, W).
        scale: Of the Gaussian, pixels; at least 0.5, since a narrower one falls between pixels.

    Returns:
        (H, W) float32, 0 where the map bends nowhere downward.
    """
    radius = math.ceil(4 * scale)
    at = torch.arange(-radius, radius + 1, dtype=torch.float32)
    flat = torch.exp(-(at**2) / (2 * scale**2))
    flat /= flat.sum()
    slope, bend = -at / scale**2 * flat, (at**2 / scale**4 - 1 / scale**2) * flat
    bend -= bend.sum() * flat  # a plane has no bend
    here = torch.from_numpy(strength)[None, None]
    padded = F.pad(here, (radius, radius, radius, radius), mode="replicate")

    def filtered(down: torch.Tensor, across: torch.Tensor) -> torch.Tensor:
        rows = F.conv2d(padded, down[None, None, :, None])
        return F.conv2d(rows, across[None, None, None, :])[0, 0]

    xx, yy, xy = filtered(flat, bend), filtered(bend, flat), filtered(slope, slope)
    lower = (xx + yy) / 2 - (((xx - yy) / 2) ** 2 + xy**2).sqrt()
    found: Floats = ((-lower).clamp(min=0) * scale**2).numpy()
    return found
