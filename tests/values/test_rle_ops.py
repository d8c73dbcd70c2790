"""Masks moved between a big picture and its parts: agreement with dense arithmetic."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from textsam.values import rle_ops as rle_canvas
from textsam.values.rle import decode_rle, encode_mask, intersect_rles, rle_area, rle_box, rle_runs
from textsam.values.rle_ops import (
    crop_rle,
    enlarge_rle,
    paste_rle,
    subtract_rle,
)

sides = st.integers(1, 20)
masks = hnp.arrays(np.bool_, st.tuples(sides, sides))


@given(masks, st.integers(0, 5), st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))
def test_paste_equals_slicing(mask: np.ndarray, x: int, y: int, right: int, below: int) -> None:
    h, w = mask.shape
    canvas = np.zeros((y + h + below, x + w + right), dtype=bool)
    canvas[y : y + h, x : x + w] = mask
    pasted = paste_rle(encode_mask(mask), x, y, size=canvas.shape)
    assert pasted == encode_mask(canvas)  # the code itself is the same, so equality means pixels
    assert crop_rle(pasted, (x, y, x + w, y + h)) == encode_mask(mask)


@given(masks, st.data())
def test_crop_equals_slicing(mask: np.ndarray, data: st.DataObject) -> None:
    h, w = mask.shape
    x0 = data.draw(st.integers(0, w - 1))
    y0 = data.draw(st.integers(0, h - 1))
    x1 = data.draw(st.integers(x0 + 1, w))
    y1 = data.draw(st.integers(y0 + 1, h))
    assert crop_rle(encode_mask(mask), (x0, y0, x1, y1)) == encode_mask(mask[y0:y1, x0:x1])


@given(st.tuples(sides, sides), st.integers(0, 2**32 - 1), st.integers(0, 3))
def test_differences_and_intersections(size: tuple[int, int], seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    first = random.random(size) < 0.6
    others = random.random((count, *size)) < 0.4
    rles = [encode_mask(other) for other in others]
    assert np.array_equal(
        decode_rle(subtract_rle(encode_mask(first), rles)), first & ~others.any(axis=0)
    )
    both = intersect_rles([encode_mask(first), *rles])
    assert np.array_equal(decode_rle(both), first & others.all(axis=0))
    for other, rle in zip(others, rles, strict=True):
        assert rle_area(intersect_rles([encode_mask(first), rle])) == int((first & other).sum())


@given(masks, st.integers(1, 4), st.integers(1, 4))
def test_enlarging_keeps_the_middles_of_pixels(mask: np.ndarray, down: int, across: int) -> None:
    """By odd factors each small pixel has one large pixel in its middle, which must agree."""
    down, across = 2 * down - 1, 2 * across - 1
    h, w = mask.shape
    large = decode_rle(enlarge_rle(encode_mask(mask), (h * down, w * across)))
    assert np.array_equal(large[down // 2 :: down, across // 2 :: across], mask)


def test_enlarging_equals_dense_interpolation(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    import torch.nn.functional as F

    mask = np.zeros((31, 40), dtype=bool)
    mask[3:20, 25:40] = True  # touches the right edge
    mask[10:31, 2:9] = True  # and the bottom
    mask ^= np.random.default_rng(0).random(mask.shape) < 0.02
    size = (203, 311)
    values = torch.from_numpy(mask).double()[None, None]
    dense = F.interpolate(values, size, mode="bilinear", align_corners=False)[0, 0].numpy()
    # Where the value is one half, rounding decides; no other pixel may differ.
    clear = np.abs(dense - 0.5) > 1e-5
    for band in (1, rle_canvas._BAND_BYTES):  # one column at a time, and all of them
        monkeypatch.setattr(rle_canvas, "_BAND_BYTES", band)
        large = decode_rle(enlarge_rle(encode_mask(mask), size))
        assert np.array_equal(large[clear], (dense > 0.5)[clear])


def test_an_empty_mask_stays_empty() -> None:
    empty = encode_mask(np.zeros((4, 5), dtype=bool))
    for rle in (
        paste_rle(empty, 2, 3, size=(20, 20)),
        enlarge_rle(empty, (20, 20)),
        subtract_rle(empty, [empty]),
        crop_rle(empty, (1, 1, 3, 3)),
    ):
        assert rle_area(rle) == 0
        assert rle_runs(rle).sum() == rle.size[0] * rle.size[1]


def test_a_hundred_megapixels_without_a_dense_mask() -> None:
    size = (10_000, 10_000)
    disk = np.hypot(*np.ogrid[-500:500, -500:500]) < 480
    tracemalloc.start()
    part = encode_mask(disk)
    placed = paste_rle(part, 8_123, 4_567, size=size)
    other = paste_rle(part, 8_323, 4_567, size=size)
    shared = rle_area(intersect_rles([placed, other]))
    left = subtract_rle(placed, [other])
    large = enlarge_rle(part, (7_000, 7_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rle_area(placed) == int(disk.sum())
    assert rle_area(left) == rle_area(placed) - shared
    assert shared == int((disk[:, 200:] & disk[:, :-200]).sum())
    assert list(rle_box(placed)) == [8_123 + 21, 4_567 + 21, 8_123 + 980, 4_567 + 980]
    assert rle_area(large) == pytest.approx(49 * int(disk.sum()), rel=1e-3)
    assert peak < 50e6  # of a dense mask, 100e6


def test_what_does_not_fit_is_refused() -> None:
    rle = encode_mask(np.ones((4, 5), dtype=bool))
    with pytest.raises(ValueError, match="inside"):
        paste_rle(rle, 3, 0, size=(4, 7))
    with pytest.raises(ValueError, match="inside"):
        crop_rle(rle, (0, 0, 6, 2))
    with pytest.raises(ValueError, match="wanted a larger"):
        enlarge_rle(rle, (4, 4))
    with pytest.raises(ValueError, match="mask 1 has size"):
        intersect_rles([rle, encode_mask(np.ones((5, 4), dtype=bool))])
