"""Polygons hold the mask, with its holes and parts, for both ways in which libraries fill them."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from textsam.results.polygons import (
    fill_polygons,
    mask_to_polygons,
    mask_to_rings,
    ring_area,
    yolo_text,
)
from textsam.results.segmentation import Segmentation


@st.composite
def noise(draw):
    """Masks with everything: holes, parts, single pixels, pixels that touch at a corner."""
    size = draw(st.integers(1, 14)), draw(st.integers(1, 14))
    share = draw(st.floats(0, 1))
    return np.random.default_rng(draw(st.integers(0, 10**6))).random(size) < share


def disc(size=(200, 220), box=(20, 30, 180, 160), hole=None):
    picture = Image.new("1", size[::-1])
    ImageDraw.Draw(picture).ellipse(box, fill=1)
    if hole:
        ImageDraw.Draw(picture).ellipse(hole, fill=0)
    return np.asarray(picture)


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


@given(noise())
@settings(max_examples=50, deadline=None)
def test_rings_are_exact(mask):
    rings = mask_to_rings(mask)
    assert sum(ring_area(ring) for ring in rings) == mask.sum()
    even_odd = np.zeros(mask.shape, dtype=bool)
    for ring in rings:
        even_odd ^= fill_polygons([ring], mask.shape)
    np.testing.assert_array_equal(even_odd, mask)
    np.testing.assert_array_equal(_winding(rings, mask.shape), mask)


@given(noise(), st.booleans())
@settings(max_examples=50, deadline=None)
def test_polygons_along_edges_are_exact(mask, join_parts):
    polygons = mask_to_polygons(mask, join_parts=join_parts)
    assert sum(ring_area(ring) for ring in polygons) == pytest.approx(mask.sum())
    np.testing.assert_array_equal(fill_polygons(polygons, mask.shape), mask)
    np.testing.assert_array_equal(_winding(polygons, mask.shape), mask)
    assert not join_parts or len(polygons) == mask.any()


@given(noise())
@settings(max_examples=50, deadline=None)
def test_polygons_through_centres_are_exact(mask):
    polygons = mask_to_polygons(mask, centres=True)
    np.testing.assert_array_equal(fill_polygons(polygons, mask.shape, centres=True), mask)
    joined = mask_to_polygons(mask, centres=True, join_parts=True)
    assert len(joined) == mask.any()
    # Readers that paint borders paint the bridges between parts, and nothing else.
    filled = fill_polygons(joined, mask.shape, centres=True)
    assert filled[mask].all()
    assert mask.all() or len(polygons) > 1 or not (filled & ~mask).any()


@given(noise())
@settings(max_examples=30, deadline=None)
def test_supervision_fills_the_same(mask):
    supervision = pytest.importorskip("supervision")
    filled = np.zeros(mask.shape, dtype=bool)
    for ring in mask_to_polygons(mask, centres=True):
        corners = np.resize(ring, (max(3, len(ring)), 2))
        filled |= supervision.polygon_to_mask(corners, mask.shape[::-1]).astype(bool)
    np.testing.assert_array_equal(filled, mask)


def _winding(rings, size):
    """Whether the winding number of a pixel's centre is not 0."""
    ys, xs = np.mgrid[: size[0], : size[1]] + 0.4375  # beside bridges, which run through centres
    number = np.zeros(size, dtype=int)
    for ring in rings:
        for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            if y0 != y1:
                crosses = (ys > min(y0, y1)) & (ys < max(y0, y1))
                side = xs < x0 + (ys - y0) * (x1 - x0) / (y1 - y0)
                number += crosses * side * np.sign(y1 - y0).astype(int)
    return number != 0


@pytest.mark.parametrize("centres", [False, True])
@pytest.mark.parametrize("hole", [None, (80, 60, 120, 110)])
def test_simplified_polygons_stay_close(centres, hole):
    mask = disc(hole=hole)
    (exact,) = mask_to_polygons(mask, centres=centres)
    (simple,) = mask_to_polygons(mask, centres=centres, tolerance=0.5)
    assert len(simple) < len(exact) / 2
    assert iou(fill_polygons([simple], mask.shape, centres=centres), mask) > 0.99


@pytest.mark.parametrize("side", [1, 2, 4, 16])
def test_squares_keep_their_size_in_yolo(side):
    """A 4-pixel square was 5 pixels wide (IoU .64) for those who train on it, one of 16 17."""
    masks = np.zeros((1, 40, 60), dtype=bool)
    masks[0, 7 : 7 + side, 11 : 11 + side] = True
    (line,) = yolo_text(Segmentation.from_masks(masks)._table).splitlines()
    ring = np.array(line.split()[1:], dtype=np.float32).reshape(-1, 2) * np.float32([60, 40])
    assert len(ring) >= 3
    for whole in (np.trunc, np.round):  # Ultralytics cuts, supervision rounds
        filled = fill_polygons([whole(ring)], (40, 60), centres=True)
        np.testing.assert_array_equal(filled, masks[0])


def test_masks_of_many_pieces_are_joined_in_time():
    """1,573 rings took a minute, by comparing all corners with all."""
    mask = np.zeros((400, 400), dtype=bool)
    mask[::10, ::10] = True  # 1,600 pixels
    mask[100:300, 100:300] ^= np.random.default_rng(0).random((200, 200)) < 0.02
    start = time.process_time()
    (polygon,) = mask_to_polygons(mask, join_parts=True)
    assert time.process_time() - start < 1
    np.testing.assert_array_equal(fill_polygons([polygon], mask.shape), mask)


def test_parts_without_a_common_row_or_column_are_joined():
    mask = np.zeros((60, 60), dtype=bool)
    for place in (0, 20, 40):
        mask[place : place + 8, place : place + 8] = True
    (polygon,) = mask_to_polygons(mask, join_parts=True, centres=True)
    filled = fill_polygons([polygon], mask.shape, centres=True)
    assert filled[mask].all()
    assert (filled & ~mask).sum() <= 2 * 13  # two bridges from corner to corner
