"""Colours of masks, as people name them: phrases such as "red car" at no cost."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

COLOURS = (
    *("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown"),
    *("black", "white", "grey"),
)
_STEP = 2  # pixels: a colour needs no full resolution
# Upper ends of hues in degrees, of colours that are neither dark nor pale; above the last, red.
_HUES = ((12, "red"), (38, "orange"), (68, "yellow"), (165, "green"), (255, "blue"))
_LATE_HUES = ((295, "purple"), (340, "pink"), (361, "red"))


def colour_shares(pixels: Tensor, masks: Tensor) -> NDArray[np.float32]:
    """How much of each mask has each of `COLOURS`.

    Args:
        pixels: (3, h, w) uint8.
        masks: (M, S, S) bool, padded to the right and below.

    Returns:
        (M, 11) shares. They need not add up to one: beige, skin and what lies between two colours
        have no name.
    """
    height, width = pixels.shape[1:]
    names = _named(pixels[:, ::_STEP, ::_STEP].permute(1, 2, 0).numpy())
    inside = masks[:, :height:_STEP, :width:_STEP].numpy()
    counts = np.stack([np.bincount(names[mask], minlength=len(COLOURS) + 1) for mask in inside])
    total = np.maximum(1, counts.sum(1, keepdims=True))
    return (counts[:, : len(COLOURS)] / total).astype(np.float32)


def _named(picture: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Number (h, w) of each pixel's colour in `COLOURS`; 11 for none."""
    hue, saturation, value = (
        np.asarray(channel, dtype=np.float32) / 255
        for channel in Image.fromarray(picture).convert("HSV").split()
    )
    degrees = hue * 360
    names = np.full(picture.shape[:2], len(COLOURS))
    low = 0.0
    for high, name in (*_HUES, *_LATE_HUES):
        names[(degrees >= low) & (degrees < high)] = COLOURS.index(name)
        low = high
    warm = (degrees < 45) | (degrees >= 340)
    # Brown is dark orange or dark red with little colour; pink is pale red.
    names[(degrees >= 12) & (degrees < 45) & (value < 0.6)] = COLOURS.index("brown")
    names[warm & (saturation < 0.5) & (value >= 0.6)] = len(COLOURS)  # beige, skin
    rosy = (degrees < 12) | (degrees >= 320)
    names[rosy & (saturation >= 0.2) & (saturation < 0.6) & (value > 0.75)] = COLOURS.index("pink")
    names[(saturation < 0.3) & (saturation >= 0.15)] = len(COLOURS)  # hardly a colour
    pale = saturation < 0.15
    names[pale] = COLOURS.index("grey")
    names[pale & (value > 0.8)] = COLOURS.index("white")
    names[value < 0.22] = COLOURS.index("black")
    return names
