"""Contact sheets: what lies where, and masks that are cut out for them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from textsam.pictures.contact_sheet import Cell, contact_sheet, mask_cell
from textsam.pictures.draw import PALETTE
from textsam.values.rle import encode_mask

COLORS = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0), (0, 200, 200)]


def cells(count: int, size: tuple[int, int] = (40, 40)) -> list[Cell]:
    return [Cell(picture=Image.new("RGB", size, COLORS[k]), caption=f"{k}") for k in range(count)]


def places(sheet: Image.Image, color: tuple[int, int, int]) -> tuple[int, int, int, int]:
    ys, xs = np.nonzero((np.asarray(sheet) == color).all(-1))
    return int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1


def test_cells_stand_in_rows_from_left_to_right() -> None:
    sheet = contact_sheet({"one": cells(3), "none": [], "two": cells(5)[3:]}, size=40)
    boxes = [places(sheet, color) for color in COLORS]
    assert all(x1 - x0 == y1 - y0 == 40 for x0, y0, x1, y1 in boxes)
    lefts, tops = [box[0] for box in boxes], [box[1] for box in boxes]
    assert lefts[0] < lefts[1] < lefts[2] and len(set(tops[:3])) == 1
    assert lefts[3:] == lefts[:2] and tops[3] == tops[4] > boxes[0][3]


def test_a_long_row_goes_on_below() -> None:
    sheet = contact_sheet({"": cells(5)}, size=40, columns=2)
    boxes = [places(sheet, color) for color in COLORS]
    assert [box[0] for box in boxes] == [boxes[0][0], boxes[1][0]] * 2 + [boxes[0][0]]
    assert boxes[0][1] == boxes[1][1] < boxes[2][1] == boxes[3][1] < boxes[4][1]
    assert sheet.width < contact_sheet({"": cells(5)}, size=40).width


def test_pictures_are_shrunk_to_the_cell_and_centred() -> None:
    sheet = contact_sheet({"": cells(1, size=(200, 100))}, size=40)
    x0, y0, x1, y1 = places(sheet, COLORS[0])
    assert (x1 - x0, y1 - y0) == (40, 20)
    small = contact_sheet({"": cells(1, size=(10, 10))}, size=40)
    a0, b0, a1, b1 = places(small, COLORS[0])
    assert (a1 - a0, b1 - b0) == (10, 10)
    assert abs((a0 + a1) - (x0 + x1)) <= 1 and abs((b0 + b1) - (y0 + y1)) <= 1


def test_a_long_caption_stays_in_its_cell() -> None:
    long = [Cell(picture=c.picture, caption="a very long line " * 20) for c in cells(2)]
    sheet = np.asarray(contact_sheet({"": long}, size=60))
    gap = sheet[-20:, 8 + 60 : 8 + 60 + 8]  # between the captions of the two
    assert (gap == 255).all()
    assert (sheet[-24:, 8:68] < 128).any()  # and there is a caption


def test_nothing_to_show_is_refused() -> None:
    with pytest.raises(ValueError, match="no cell"):
        contact_sheet({"one": []})
    with pytest.raises(ValueError, match="columns=0"):
        contact_sheet({"one": cells(1)}, columns=0)


def test_a_mask_is_cut_out_with_its_surroundings() -> None:
    image = np.full((100, 200, 3), 90, np.uint8)
    mask = np.zeros((100, 200), bool)
    mask[40:60, 90:130] = True
    image[mask] = (10, 240, 10)
    cell = mask_cell(image, encode_mask(mask), size=160, context=2.0, caption="it")
    assert cell.caption == "it" and cell.picture.size == (160, 160)  # 80 x 80 pixels, doubled
    shown = np.asarray(cell.picture).astype(int)
    assert shown[80, 80, 1] > 200 and shown[80, 80, 0] < 80  # its middle, slightly tinted
    outline = np.abs(shown - PALETTE[1]).sum(-1) < 60
    ys, xs = np.nonzero(outline)
    assert abs(xs.min() - 40) <= 4 and abs(xs.max() - 120) <= 4
    assert abs(ys.min() - 60) <= 4 and abs(ys.max() - 100) <= 4


@pytest.mark.parametrize("box", [(0, 0, 3, 3), (190, 90, 200, 100), (0, 0, 200, 100)])
def test_the_window_ends_where_the_photo_does(box: tuple[int, int, int, int]) -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    mask = np.zeros((100, 200), bool)
    x0, y0, x1, y1 = box
    mask[y0:y1, x0:x1] = True
    cell = mask_cell(image, encode_mask(mask), size=64)
    assert max(cell.picture.size) == 64 and min(cell.picture.size) >= 12


def test_a_mask_of_another_photo_or_of_nothing_is_refused() -> None:
    image = np.zeros((10, 20, 3), np.uint8)
    with pytest.raises(ValueError, match="not the photo"):
        mask_cell(image, encode_mask(np.ones((5, 5), bool)))
    with pytest.raises(ValueError, match="nothing to show"):
        mask_cell(image, encode_mask(np.zeros((10, 20), bool)))
