"""Colours of masks."""

from __future__ import annotations

import pytest
import torch

from training.data.phrases.colours import COLOURS, colour_shares


@pytest.mark.parametrize(
    ("rgb", "expected"),
    [
        ((200, 20, 20), "red"),
        ((240, 140, 20), "orange"),
        ((240, 220, 40), "yellow"),
        ((30, 150, 50), "green"),
        ((40, 80, 200), "blue"),
        ((120, 40, 180), "purple"),
        ((250, 160, 190), "pink"),
        ((110, 60, 25), "brown"),
        ((15, 15, 20), "black"),
        ((245, 245, 245), "white"),
        ((120, 122, 121), "grey"),
        ((225, 190, 160), None),  # skin
    ],
)
def test_a_mask_has_the_colour_that_people_name(
    rgb: tuple[int, int, int], expected: str | None
) -> None:
    pixels = torch.tensor(rgb, dtype=torch.uint8)[:, None, None].expand(3, 10, 12)
    shares = colour_shares(pixels, torch.ones(1, 16, 16, dtype=torch.bool))
    named = {name for name, share in zip(COLOURS, shares[0], strict=True) if share > 0.5}
    assert named == ({expected} if expected else set())


def test_shares_are_of_the_mask_alone_and_padding_has_none() -> None:
    pixels = torch.zeros(3, 8, 16, dtype=torch.uint8)
    pixels[0, :, 8:] = 220  # black on the left, red on the right
    masks = torch.zeros(3, 16, 16, dtype=torch.bool)
    masks[0, :8, :8] = True
    masks[1, :, 4:12] = True
    masks[2, 8:] = True  # below the picture
    shares = colour_shares(pixels, masks)
    black, red = COLOURS.index("black"), COLOURS.index("red")
    assert shares.shape == (3, len(COLOURS))
    assert shares[0, black] == 1 and shares[1, black] == shares[1, red] == 0.5
    assert shares[2].sum() == 0
