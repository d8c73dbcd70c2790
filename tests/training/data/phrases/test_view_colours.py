"""Colours of the masks of a view."""

from __future__ import annotations

import torch

from textsam.values.prompts import COLOURS
from training.data.phrases.view_colours import view_colours


def test_shares_are_of_the_mask_alone_and_padding_has_none() -> None:
    pixels = torch.zeros(3, 8, 16, dtype=torch.uint8)
    pixels[0, :, 8:] = 220  # black on the left, red on the right
    masks = torch.zeros(3, 16, 16, dtype=torch.bool)
    masks[0, :8, :8] = True
    masks[1, :, 4:12] = True
    masks[2, 8:] = True  # below the picture
    shares = view_colours(pixels, masks)
    black, red = COLOURS.index("black"), COLOURS.index("red")
    assert shares.shape == (3, len(COLOURS))
    assert shares[0, black] == 1 and shares[1, black] == shares[1, red] == 0.5
    assert shares[2].sum() == 0
