"""Resizes RGB photos of any size as Segment Anything does."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from textsam.errors import ImageError

__all__ = ["resize_image"]

# Larger photos are resized in bands of this many pixels.
_BAND_PIXELS = 8 * 1024 * 1024


def resize_image(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize as the released code does: Pillow's bilinear filter, with antialiasing.

    Args:
        image: (H, W, 3) uint8.
        size: (h, w) in pixels; `Frame.resized` for the model's frame.

    Returns:
        (h, w, 3) uint8, contiguous, always a copy.

    Raises:
        ImageError: The image is not uint8 RGB, or the size is not positive.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ImageError(
            f"resize_image: got {image.dtype} of shape {image.shape}; wanted uint8 (H, W, 3). "
            "Type: resize_image(load_image(image), size)"
        )
    h, w = (int(side) for side in size)
    if min(h, w, *image.shape[:2]) < 1:
        raise ImageError(f"resize_image: from {image.shape[:2]} to {(h, w)}; wanted (h, w) >= 1")
    height, width = image.shape[:2]
    if height * width <= max(_BAND_PIXELS, h * w):
        pil = Image.fromarray(np.ascontiguousarray(image))
        return np.array(pil.resize((w, h), Image.Resampling.BILINEAR))
    return _resize_in_bands(image, (h, w))


def _resize_in_bands(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize some rows at a time, because Pillow keeps a copy of its input, 4 bytes a pixel.

    Each band includes the rows around it that the filter reaches, so that no border is visible.
    """
    height, width = image.shape[:2]
    h, w = size
    scale = height / h
    reach = math.ceil(max(scale, 1.0)) + 1  # the triangle filter's radius is one target pixel
    rows = max(1, int(_BAND_PIXELS / (width * scale)))
    resized = np.empty((h, w, 3), dtype=np.uint8)
    for start in range(0, h, rows):
        end = min(start + rows, h)
        first = max(0, math.floor(start * scale) - reach)
        last = min(height, math.ceil(end * scale) + reach)
        band = Image.fromarray(np.ascontiguousarray(image[first:last]))
        box = (0, start * scale - first, width, min(end * scale, height) - first)
        shape = (w, end - start)
        resized[start:end] = np.asarray(band.resize(shape, Image.Resampling.BILINEAR, box=box))
    return resized
