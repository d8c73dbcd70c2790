"""Tiles cover the photo, overlap as promised, and show small things whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textsam.errors import PromptError
from textsam.inference.tiled.tiled_view import tile_windows
from textsam.values.geometry import Window
from textsam.values.settings import TileSettings

sizes = st.tuples(st.integers(1, 700), st.integers(1, 700))
grids = st.integers(64, 200).flatmap(
    lambda tile: st.builds(TileSettings, tile=st.just(tile), overlap=st.integers(0, tile // 2))
)


@given(sizes, grids)
def test_every_pixel_is_in_a_tile_and_all_tiles_are_alike(
    size: tuple[int, int], settings: TileSettings
) -> None:
    covered = np.zeros(size, dtype=int)
    windows = tile_windows(size, settings)
    for x0, y0, x1, y1 in windows:
        assert 0 <= x0 < x1 <= size[1]
        assert 0 <= y0 < y1 <= size[0]
        covered[y0:y1, x0:x1] += 1
    assert covered.all()
    sides = {(w.y1 - w.y0, w.x1 - w.x0) for w in windows}
    assert sides == {(min(size[0], settings.tile), min(size[1], settings.tile))}


@given(sizes, grids, st.data())
def test_what_is_no_longer_than_the_overlap_is_whole_in_a_tile(
    size: tuple[int, int], settings: TileSettings, data: st.DataObject
) -> None:
    longest = max(1, settings.overlap)
    h, w = (data.draw(st.integers(1, min(longest, side))) for side in size)
    y, x = data.draw(st.integers(0, size[0] - h)), data.draw(st.integers(0, size[1] - w))
    box = Window(x, y, x + w, y + h)
    assert any(box.shared(window) == box for window in tile_windows(size, settings))


@given(sizes, grids)
def test_no_tile_too_many(size: tuple[int, int], settings: TileSettings) -> None:
    step = settings.tile - settings.overlap
    rows, columns = (1 + max(0, -(-(side - settings.tile) // step)) for side in size)
    assert len(tile_windows(size, settings)) == rows * columns


def test_a_photo_that_fits_is_one_tile() -> None:
    assert tile_windows((768, 1024), TileSettings()) == [Window(0, 0, 1024, 768)]
    assert tile_windows((1, 1), TileSettings()) == [Window(0, 0, 1, 1)]


def test_a_hundred_megapixels() -> None:
    assert len(tile_windows((10_000, 10_000), TileSettings())) == 13 * 13


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": 32}, "64 pixels or more"),
        ({"tile": 512.0}, "whole pixels"),
        ({"overlap": True}, "whole pixels"),
        ({"overlap": -1}, "wanted 0 to 512"),
        ({"tile": 256, "overlap": 200}, "wanted 0 to 128"),
    ],
)
def test_grids_that_cannot_be_meant(options: dict[str, float], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        TileSettings(**options)
