from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from demos.explorer.board import Board, BoardObject
from textsam.results.mask_result import MaskResult
from textsam.values.rle import encode_mask


def make_object(number: int, mask: np.ndarray, **known: object) -> BoardObject:
    result = MaskResult(rle=encode_mask(mask))
    values = {"name": f"thing {number}", "color": number, "origin": "phrase", **known}
    return BoardObject(number=number, result=result, **values)


@given(st.integers(0, 2**32 - 1))
def test_covers_reads_from_the_runs_what_the_mask_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((rng.integers(1, 9), rng.integers(1, 9))) < rng.random()
    item = make_object(1, mask)
    covered = [
        [item.covers(x + 0.5, y + 0.9) for x in range(mask.shape[1])] for y in range(len(mask))
    ]
    assert np.array_equal(covered, mask)


def test_a_click_means_the_smallest_visible_object() -> None:
    whole, part = np.ones((8, 8), bool), np.zeros((8, 8), bool)
    part[2:4, 2:4] = True
    board = Board(objects=(make_object(1, whole), make_object(2, part)))
    assert board.object_at(2.5, 2.5).number == 2
    assert board.object_at(6, 6).number == 1
    hidden = Board(objects=(make_object(1, whole), make_object(2, part, shown=False)))
    assert hidden.object_at(2.5, 2.5).number == 1
    assert Board().object_at(1, 1) is None


def test_free_colors_are_those_that_no_object_has() -> None:
    mask = np.ones((2, 2), bool)
    board = Board(objects=(make_object(1, mask, color=0), make_object(2, mask, color=2)))
    assert board.free_color() == 1
    assert board.without(1).free_color() == 0


def test_masks_of_one_phrase_share_a_colour_beside_those_of_another() -> None:
    rle = encode_mask(np.ones((2, 2), bool))
    results = [MaskResult(rle=rle, label=label) for label in ("wheel", "door", "wheel")]
    board = Board().add(results, "phrase")
    assert [item.color for item in board.objects] == [0, 1, 0]
    assert [item.color for item in Board().add(results[::2], "phrase").objects] == [0, 1]
    assert [item.number for item in board.without(3).add(results[:1], "like").objects] == [1, 2, 4]


def test_a_result_has_the_names_and_the_presence_of_visible_objects() -> None:
    mask = np.ones((2, 3), bool)
    items = (make_object(1, mask, name="wheel"), make_object(2, mask, name="cat", shown=False))
    board = Board(objects=items, presence=(("wheel", 0.9), ("cat", 0.1)))
    result = board.to_segmentation((2, 3), image=None)
    assert result.labels == ["wheel"] and result.presence == {"wheel": 0.9}
    assert len(Board().to_segmentation((2, 3), image=None)) == 0
