"""Phrases with a colour, and colours of masks."""

from __future__ import annotations

import numpy as np
import pytest

from textsam.values.colours import colour_match, colour_shares
from textsam.values.prompts import COLOURS, split_colour
from textsam.values.rle import encode_masks


@pytest.mark.parametrize(
    ("rgb", "names"),
    [
        ((200, 20, 20), {"red"}),
        ((240, 140, 20), {"orange", "yellow"}),  # a school bus
        ((240, 220, 40), {"yellow"}),
        ((30, 150, 50), {"green"}),
        ((40, 80, 200), {"blue"}),
        ((120, 40, 180), {"purple"}),
        ((250, 160, 190), {"pink"}),
        ((110, 60, 25), {"brown"}),
        ((15, 15, 20), {"black"}),
        ((245, 245, 245), {"white"}),
        ((120, 122, 121), {"grey"}),
        ((225, 190, 160), set()),  # skin
    ],
)
def test_pixels_have_the_colours_that_people_name(
    rgb: tuple[int, int, int], names: set[str]
) -> None:
    photo = np.full((10, 12, 3), rgb, dtype=np.uint8)
    shares = colour_shares(photo, encode_masks(np.ones((1, 10, 12), dtype=np.bool_)))
    assert {name for name, share in zip(COLOURS, shares[0], strict=True) if share == 1} == names
    matches = {name for name in COLOURS if colour_match(shares[0], name) == 1}
    assert matches == names


def test_shares_are_of_each_mask_alone_at_any_size() -> None:
    photo = np.zeros((300, 700, 3), dtype=np.uint8)
    photo[:, 350:, 0] = 220  # black on the left, red on the right
    masks = np.zeros((4, 300, 700), dtype=np.bool_)
    masks[0, :, :350] = masks[1, 40:, 175:525] = masks[2, 299, 699] = True
    black, red = COLOURS.index("black"), COLOURS.index("red")
    shares = colour_shares(photo, encode_masks(masks))
    assert shares[0, black] == shares[2, red] == 1 and shares[0, red] == shares[2, black] == 0
    assert shares[1, [black, red]] == pytest.approx(0.5, abs=0.02)
    assert not shares[3].any()  # an empty mask
    assert colour_shares(photo, []).shape == (0, len(COLOURS))


def test_a_little_of_a_colour_is_not_the_colour_of_a_thing() -> None:
    shares = np.zeros(len(COLOURS))
    shares[COLOURS.index("white")], shares[COLOURS.index("red")] = 0.8, 0.06  # a truck's lights
    assert colour_match(shares, "white") == 1 and colour_match(shares, "red") < 0.15
    shares[COLOURS.index("red")] = 0.3  # a red stripe
    assert 0.5 < colour_match(shares, "red") < 1


@pytest.mark.parametrize(
    ("phrase", "colour", "name"),
    [
        ("red car", "red", "car"),
        ("a Dark Red car", "red", "car"),
        ("the gray mouse", "grey", "mouse"),
        ("light blue fire hydrant", "blue", "fire hydrant"),
    ],
)
def test_a_phrase_is_split_at_its_colour(phrase: str, colour: str, name: str) -> None:
    assert split_colour(phrase) == (colour, name)


@pytest.mark.parametrize("phrase", ["car", "orange", "an orange", "dark red", "car red", "redcar"])
def test_a_phrase_without_a_colour_of_something_stays_whole(phrase: str) -> None:
    assert split_colour(phrase) is None


def test_known_names_keep_their_colour() -> None:
    assert split_colour("Red wine", known={"red wine": "red wine"}) is None
