"""RGB photos to another size, as Segment Anything does it, however large they are."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from textsam.errors import ImageError

__all__ = ["resize_image"]

# Larger photos are resized in bands of so many pixels.
_BAND_PIXELS = 8 * 1024 * 1024


def resize_image(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize as the released SAM does: PIL's bilinear filter, which antialiases when shrinking.

    Args:
        image: (H, W, 3) uint8.
        size: (h, w) wanted, pixels; `Frame.resized` for the model's frame.

    Returns:
        (h, w, 3) uint8, contiguous, never the input itself.

    Raises:
        ImageError: Not an RGB uint8 image, or a size that is not positive.
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
    """Resize some rows at a time: Pillow keeps a copy of what it resizes, 4 bytes a pixel.

    Each band is given with the rows around it that its filter reaches, so no border shows.
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
