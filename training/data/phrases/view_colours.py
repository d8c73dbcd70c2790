"""Colours of the masks of a view: phrases such as "red car" at no cost."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from textsam.values.colours import possible_colours
from textsam.values.prompts import COLOURS

_STEP = 2  # pixels: a colour needs no full resolution


def view_colours(pixels: Tensor, masks: Tensor) -> NDArray[np.float32]:
    """How much of each mask may be called by each of `COLOURS`.

    Args:
        pixels: (3, h, w) uint8.
        masks: (M, S, S) bool, padded to the right and below.

    Returns:
        (M, 11) shares, which need not add up to one.
    """
    height, width = pixels.shape[1:]
    colours = possible_colours(pixels[:, ::_STEP, ::_STEP].permute(1, 2, 0).numpy())
    inside = masks[:, :height:_STEP, :width:_STEP].numpy().reshape(len(masks), -1)
    counts = inside.astype(np.float32) @ colours.reshape(len(COLOURS), -1).T.astype(np.float32)
    return (counts / np.maximum(1, inside.sum(1, keepdims=True))).astype(np.float32)
