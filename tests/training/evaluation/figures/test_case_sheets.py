"""`training.evaluation.figures.case_sheets`: which cases it keeps, and where they are drawn."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from textsam.pictures.contact_sheet import Cell
from textsam.pictures.draw import PALETTE
from training.data import Sample
from training.evaluation.figures import case_sheets as sheets
from training.evaluation.figures.case_sheets import (
    Gallery,
    MaskCase,
    draw_case,
    write_cells,
    write_sheet,
)

SIZE = (60, 90)
NOTHING = np.zeros(SIZE, dtype=bool)


def _box(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = NOTHING.copy()
    mask[y0:y1, x0:x1] = True
    return mask


def _sample(name: str, grey: int = 128) -> Sample:
    file = io.BytesIO()
    Image.new("RGB", SIZE[::-1], (grey,) * 3).save(file, "PNG")
    return Sample(
        image_id=name,
        source="",
        encoded=file.getvalue(),
        size=SIZE,
        exhaustive=True,
        void=None,
        objects=(),
    )


def _gallery(figures, count: int = 3) -> Gallery:
    gallery = Gallery(count)
    for index, figure in enumerate(figures):
        gallery.add(
            MaskCase.of(figure, _sample(f"photo {index}"), NOTHING, _box(0, 0, 9, 9), "cat")
        )
    return gallery


def test_it_keeps_the_worst_and_the_best():
    figures = np.random.default_rng(0).permutation(50) / 50

    gallery = _gallery(figures.tolist())

    assert [case.figure for case in gallery.lowest] == [0.0, 0.02, 0.04]
    assert [case.figure for case in gallery.highest] == [0.98, 0.96, 0.94]


def test_of_equals_the_first_stay():
    gallery = _gallery([0.5] * 6)

    assert [case.sample.image_id for case in gallery.lowest] == ["photo 0", "photo 1", "photo 2"]
    assert [case.sample.image_id for case in gallery.highest] == ["photo 0", "photo 1", "photo 2"]


def _near(picture: Image.Image, color: tuple[int, int, int]) -> np.ndarray:
    """(H, W) bool: pixels that are nearly of a colour."""
    return (np.abs(np.asarray(picture).astype(int) - color) < 40).all(-1)


def test_prediction_truth_and_click_are_drawn_where_they_are():
    gallery = Gallery()
    prediction, truth = _box(10, 10, 40, 50), _box(50, 10, 80, 50)
    gallery.add(MaskCase.of(0.0, _sample("photo"), prediction, truth, "cat", [(65.0, 30.0)]))

    picture = draw_case(gallery.lowest[0], size=180)

    assert picture.size == (180, 120)
    painted, outlined = _near(picture, PALETTE[1]), _near(picture, PALETTE[2])
    assert painted[:, :90].any() and not painted[:, 90:].any()
    assert outlined[:, 90:].any() and not outlined[:, :90].any()
    assert picture.getpixel((130, 60)) == (255, 255, 255)
    # The truth is an outline only: inside, away from the click, the photo is as it was.
    assert picture.getpixel((110, 90)) == pytest.approx((128, 128, 128), abs=2)


def test_a_sheet_has_a_cell_for_every_case_and_a_row_for_every_heading(tmp_path):
    gallery = _gallery([0.1, 0.2, 0.3, 0.4])
    row = [Cell(picture=draw_case(case, size=60)) for case in gallery.lowest]

    write_cells(tmp_path / "one.png", {"a": row})
    write_cells(tmp_path / "two.png", {"a": row, "nothing": [], "b": row[:1]})
    write_cells(tmp_path / "none.png", {"nothing": []})

    one, two = (Image.open(tmp_path / name) for name in ("one.png", "two.png"))
    assert one.width == two.width >= 3 * 60
    assert two.height > 1.8 * one.height
    assert not (tmp_path / "none.png").exists()


def test_an_empty_prediction_and_an_empty_truth_can_be_drawn():
    gallery = Gallery()
    gallery.add(MaskCase.of(1.0, _sample("photo"), NOTHING, NOTHING, "cat"))

    assert _near(draw_case(gallery.highest[0]), (128, 128, 128)).all()


def test_the_file_is_written_if_there_is_something_to_show(tmp_path):
    path = tmp_path / "sheet.png"

    write_sheet(path, {"set": Gallery()})
    assert not path.exists()
    write_sheet(None, {"set": _gallery([0.5])})
    write_sheet(path, {"set": _gallery([0.5])})
    with Image.open(path) as picture:
        assert picture.format == "PNG"


def test_a_gallery_keeps_at_least_one():
    with pytest.raises(ValueError, match="wanted at least 1"):
        Gallery(0)


def test_a_gallery_says_what_it_is_ranked_by_and_which_side_is_drawn(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(sheets, "write_cells", lambda path, rows: drawn.update(rows))
    both, high = Gallery(figure="IoU"), Gallery(figure="score", sides=("highest",))

    write_sheet(tmp_path / "s.png", {"a": both, "b": high})

    assert list(drawn) == ["a: lowest IoU", "a: highest IoU", "b: highest score"]
