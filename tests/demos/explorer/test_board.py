from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from demos.explorer.board import Board, Thing, to_segmentation
from textsam.results.columns import MaskResult
from textsam.values.rle import encode_mask


def thing(number: int, mask: np.ndarray, **known: object) -> Thing:
    found = MaskResult(rle=encode_mask(mask))
    values = {"name": f"thing {number}", "color": number, "origin": "phrase", **known}
    return Thing(number=number, found=found, **values)


@given(st.integers(0, 2**32 - 1))
def test_covers_asks_the_runs_and_gets_what_the_mask_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((rng.integers(1, 9), rng.integers(1, 9))) < rng.random()
    one = thing(1, mask)
    covered = [
        [one.covers(x + 0.5, y + 0.9) for x in range(mask.shape[1])] for y in range(len(mask))
    ]
    assert np.array_equal(covered, mask)


def test_the_smallest_visible_thing_is_meant() -> None:
    whole, part = np.ones((8, 8), bool), np.zeros((8, 8), bool)
    part[2:4, 2:4] = True
    board = Board(things=(thing(1, whole), thing(2, part)))
    assert board.under(2.5, 2.5).number == 2
    assert board.under(6, 6).number == 1
    hidden = Board(things=(thing(1, whole), thing(2, part, shown=False)))
    assert hidden.under(2.5, 2.5).number == 1
    assert Board().under(1, 1) is None


def test_free_colors_are_those_that_nothing_has() -> None:
    mask = np.ones((2, 2), bool)
    board = Board(things=(thing(1, mask, color=0), thing(2, mask, color=2)))
    assert board.free_color() == 1
    assert board.without(1).free_color() == 0


def test_a_result_has_the_names_and_only_presences_of_what_is_there() -> None:
    mask = np.ones((2, 3), bool)
    result = to_segmentation(
        [thing(1, mask, name="wheel")], (2, 3), image=None, presence=[("wheel", 0.9), ("cat", 0.1)]
    )
    assert result.labels == ["wheel"] and result.presence == {"wheel": 0.9}
    assert len(to_segmentation([], (2, 3), image=None)) == 0
