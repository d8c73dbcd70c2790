"""Colours of masks as people name them, measured on the pixels: for phrases such as "red car"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from textsam.values.prompts import COLOURS
from textsam.values.rle import RLE, decode_rle, rle_box
from textsam.values.rle_ops import crop_rle

# What may be called by a name: hue in degrees from, to; saturation and value from, to. They
# overlap, because people disagree: a school bus is yellow to some and orange to others.
_RANGES = {
    "red": ((335, 378), (0.45, 1), (0.22, 1)),
    "orange": ((10, 46), (0.4, 1), (0.5, 1)),
    "yellow": ((28, 76), (0.3, 1), (0.4, 1)),
    "green": ((62, 172), (0.15, 1), (0.1, 1)),
    "blue": ((165, 262), (0.15, 1), (0.12, 1)),
    "purple": ((245, 325), (0.15, 1), (0.12, 1)),
    "pink": ((295, 375), (0.12, 0.75), (0.5, 1)),
    "brown": ((5, 48), (0.2, 1), (0.1, 0.7)),
    "black": ((0, 360), (0, 1), (0, 0.27)),
    "white": ((0, 360), (0, 0.2), (0.65, 1)),
    "grey": ((0, 360), (0, 0.2), (0.2, 0.85)),
}

# A red car is not all red: it has windows, wheels and highlights.
_MIN_SHARE = 0.25
# Beside this share of another colour, which a colour is never taken for, it is not the mask's own.
_MIN_OF_OTHERS = 0.6
_CLOSE = {
    "red": {"orange", "pink", "brown"},
    "orange": {"red", "yellow", "brown"},
    "yellow": {"orange", "brown"},
    "green": {"yellow", "blue"},
    "blue": {"purple", "green"},
    "purple": {"blue", "pink"},
    "pink": {"red", "purple", "orange"},
    "brown": {"red", "orange", "black", "yellow"},
    "black": {"grey", "brown"},
    "white": {"grey"},
    "grey": {"black", "white"},
}
_SAMPLES = 96  # pixels along a mask's longer side: a colour needs no full resolution


def possible_colours(picture: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which of `COLOURS` each pixel of a picture (h, w, 3) may be called: (11, h, w) bool."""
    hue, saturation, value = (
        np.asarray(channel, dtype=np.float32) / 255
        for channel in Image.fromarray(np.ascontiguousarray(picture)).convert("HSV").split()
    )
    degrees = hue * 360

    def within(values: NDArray[np.floating[Any]], span: tuple[float, float]) -> NDArray[np.bool_]:
        return (values >= span[0]) & (values <= span[1])

    return np.stack(
        [
            # Red and pink go on beyond 360 degrees.
            (within(degrees, hues) | within(degrees + 360, hues))
            & within(saturation, saturations)
            & within(value, values)
            for hues, saturations, values in (_RANGES[colour] for colour in COLOURS)
        ]
    )


def colour_shares(photo: NDArray[np.uint8], rles: Sequence[RLE]) -> NDArray[np.float64]:
    """How much of each mask may be called by each of `COLOURS`.

    Args:
        photo: (H, W, 3) uint8 RGB.
        rles: K masks of that size.

    Returns:
        (K, 11) shares of the mask's pixels. Names overlap, and beige has none: they do not add up
        to one.
    """
    shares = np.zeros((len(rles), len(COLOURS)))
    for row, rle in zip(shares, rles, strict=True):
        x0, y0, x1, y1 = (int(place) for place in rle_box(rle))
        if x1 > x0:
            mask = decode_rle(crop_rle(rle, (x0, y0, x1, y1)))
            row[:] = colour_shares_inside(photo[y0:y1, x0:x1], mask)
    return shares


def colour_shares_inside(
    picture: NDArray[np.uint8], mask: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """The same (11,) of one mask (h, w), given with its box of the photo (h, w, 3)."""
    step = max(1, round(max(mask.shape) / _SAMPLES))
    sample = mask[::step, ::step]
    shares: NDArray[np.float64] = possible_colours(picture[::step, ::step])[:, sample].sum(1) / max(
        1, int(sample.sum())
    )
    return shares


def colour_match(shares: NDArray[np.float64], colour: str) -> float:
    """How well a mask with these shares (11,) goes by a colour, 0 to 1; 1 if it has it."""
    share = float(shares[COLOURS.index(colour)])
    others = [
        float(shares[number])
        for number, other in enumerate(COLOURS)
        if other != colour and other not in _CLOSE[colour]
    ]
    return min(1.0, share / max(_MIN_SHARE, _MIN_OF_OTHERS * max(others)))
