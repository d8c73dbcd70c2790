"""Edges without a model, to compare with: Sobel's filter and Canny's detector.

Both work on the grey photo and are thinned by the same code as a model's edges. Published on the
test photos of BSDS500 (the table of arXiv 2304.02643, Section 7.2): ODS .539 and .600.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from textsam.errors import require
from textsam.tasks.outlines import sobel, thin_edges

Floats = NDArray[np.float32]

CANNY_SIGMA = 2.0  # pixels
CANNY_LOW = 0.4  # the low threshold as a share of the high one


def sobel_edges(image: NDArray[np.uint8]) -> Floats:
    """Magnitude of Sobel's gradient, thinned, the strongest of the photo 1: (H, W)."""
    return _crests(_grey(image))


def canny_edges(
    image: NDArray[np.uint8],
    *,
    levels: NDArray[np.float64],
    sigma: float = CANNY_SIGMA,
    low: float = CANNY_LOW,
) -> Floats:
    """Canny's detector at several thresholds, as one map.

    Gaussian blur, Sobel's gradient, non-maximum suppression, hysteresis: of the pixels over the low
    threshold those stay that are connected (8 neighbours) to one over the high threshold.

    Args:
        image: (H, W, 3) uint8.
        levels: High thresholds, rising, as shares of the photo's strongest gradient.
        sigma: Of the blur, pixels.
        low: Low threshold as a share of the high one.

    Returns:
        (H, W) the highest threshold at which a pixel is in Canny's answer; 0 for none.
    """
    ndimage = require("scipy.ndimage", "eval")
    crests = _crests(ndimage.gaussian_filter(_grey(image), sigma, mode="nearest"))
    answer = np.zeros_like(crests)
    # Rising levels: the last one that a pixel survives stays in the map.
    for level in levels:
        pieces, count = ndimage.label(crests >= low * level, structure=np.ones((3, 3)))
        strongest = ndimage.maximum(crests, pieces, np.arange(count + 1))
        kept = np.asarray(strongest) >= level
        kept[0] = False
        answer[kept[pieces]] = level
    return answer


def _grey(image: NDArray[np.uint8]) -> Floats:
    """ITU-R 601 luma, 0 to 255: (H, W)."""
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    grey: Floats = image.astype(np.float32) @ weights
    return grey


def _crests(grey: Floats) -> Floats:
    gradient = sobel(torch.from_numpy(grey)[None])[0].numpy()
    strength = np.hypot(gradient[0], gradient[1])
    return thin_edges(strength / max(float(strength.max()), 1e-12), gradient)
