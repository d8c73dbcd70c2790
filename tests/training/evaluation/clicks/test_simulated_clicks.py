"""Clicks, IoU with void, NoC and wrong phrases, on shapes whose answers are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from training.evaluation.clicks.simulated_clicks import (
    Click,
    clicks_needed,
    distance_inside,
    iou_after,
    next_click,
)
from training.evaluation.data_sets import evenly_spaced, seeded_rng
from training.evaluation.figures.intervals import mean
from training.evaluation.figures.matching import masked_iou
from training.evaluation.phrases.questions import draw_wrong

small = hnp.arrays(np.bool_, st.tuples(st.integers(1, 8), st.integers(1, 8)))


def _box(x0: int, y0: int, x1: int, y1: int, *, size: tuple[int, int] = (40, 60)) -> np.ndarray:
    mask = np.zeros(size, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def _brute_distance(region: np.ndarray) -> np.ndarray:
    height, width = region.shape
    padded = np.pad(region, 1)
    outside = np.argwhere(~padded) - 1
    distance = np.zeros((height, width))
    for y, x in np.argwhere(region):
        distance[y, x] = min(math.hypot(y - v, x - u) for v, u in outside)
    return distance


@settings(max_examples=30, deadline=None)
@given(small)
def test_distance_is_to_the_nearest_pixel_outside_and_the_border_is_outside(region):
    np.testing.assert_allclose(distance_inside(region), _brute_distance(region), atol=1e-12)


def test_first_click_is_the_centre_of_a_square_in_x_y_pixel_centres():
    truth = _box(10, 20, 15, 25)

    click = next_click(np.zeros_like(truth), truth)

    assert click == Click(12.5, 22.5, True)


def test_first_click_of_two_parts_is_in_the_thicker_one():
    truth = _box(2, 2, 30, 5) | _box(40, 20, 49, 29)  # 84 thin pixels, 81 thick ones

    assert next_click(np.zeros_like(truth), truth) == Click(44.5, 24.5, True)


def test_first_click_of_a_ring_is_on_the_ring():
    rows, columns = np.mgrid[:41, :41]
    radius = np.hypot(rows - 20, columns - 20)
    truth = (radius < 18) & (radius > 9)

    click = next_click(np.zeros_like(truth), truth)

    assert click is not None
    assert truth[int(click.y), int(click.x)]
    assert math.hypot(click.x - 20.5, click.y - 20.5) == pytest.approx(13.5, abs=1)


def test_the_image_border_is_a_boundary():
    truth = np.ones((5, 5), dtype=bool)  # without the border, a corner would be as good

    assert next_click(np.zeros_like(truth), truth) == Click(2.5, 2.5, True)


def test_next_click_is_in_the_larger_error_and_says_of_which_kind():
    truth = _box(5, 5, 25, 25)

    missing = next_click(_box(5, 5, 16, 25), truth)  # 9 columns too few
    too_much = next_click(_box(5, 5, 36, 25) & ~_box(5, 5, 10, 25), truth)  # 11 more, 5 fewer

    assert missing is not None
    assert missing.foreground
    assert missing.x == 20.5
    assert 9.5 <= missing.y <= 20.5
    assert too_much is not None
    assert not too_much.foreground
    assert too_much.x == 30.5


def test_of_equal_errors_the_false_positive_is_clicked():
    truth, prediction = _box(5, 5, 10, 10), _box(30, 5, 35, 10)

    assert next_click(prediction, truth) == Click(32.5, 7.5, False)


def test_void_is_no_error():
    truth, prediction = _box(5, 5, 20, 20), _box(5, 5, 40, 20)
    void = _box(20, 0, 60, 40)

    assert next_click(prediction, truth) is not None
    assert next_click(prediction, truth, void=void) is None
    assert masked_iou(prediction, truth) < 0.5
    assert masked_iou(prediction, truth, exclude=void) == 1.0


def test_no_pixel_is_clicked_twice():
    truth = _box(3, 3, 8, 7)
    clicks: list[Click] = []
    while (click := next_click(np.zeros_like(truth), truth, clicked=clicks)) is not None:
        clicks.append(click)

    assert len(set(clicks)) == len(clicks) == 20
    assert all(truth[int(c.y), int(c.x)] for c in clicks)


def test_a_perfect_mask_leaves_nothing_to_click():
    truth = _box(3, 3, 8, 7)

    assert next_click(truth, truth) is None


@settings(max_examples=30, deadline=None)
@given(small, st.data())
def test_a_click_corrects_the_prediction_where_it_is(truth, data):
    same = hnp.arrays(np.bool_, truth.shape)
    prediction, void = data.draw(same), data.draw(same)

    click = next_click(prediction, truth, void=void)

    wrong = (prediction ^ truth) & ~void
    assert (click is None) == (not wrong.any())
    if click is not None:
        place = int(click.y), int(click.x)
        assert wrong[place]
        assert click.foreground == truth[place]


def test_iou_of_known_boxes():
    a, b = _box(0, 0, 10, 10), _box(5, 0, 15, 10)

    assert masked_iou(a, b) == pytest.approx(50 / 150)
    assert masked_iou(a, b, exclude=_box(0, 0, 5, 10)) == pytest.approx(50 / 100)
    assert masked_iou(a, np.zeros_like(a)) == 0.0
    assert masked_iou(np.zeros_like(a), np.zeros_like(a)) == 1.0


@settings(max_examples=30, deadline=None)
@given(small, st.data())
def test_excluded_pixels_change_nothing(truth, data):
    same = hnp.arrays(np.bool_, truth.shape)
    prediction, void, noise = data.draw(same), data.draw(same), data.draw(same)

    iou = masked_iou(prediction, truth, exclude=void)

    assert iou == masked_iou(prediction ^ (noise & void), truth, exclude=void)
    assert iou == masked_iou(truth, prediction, exclude=void)
    assert 0.0 <= iou <= 1.0


@pytest.mark.parametrize(
    "bad", [np.zeros((60, 40), bool), np.zeros((40, 60), np.uint8), np.zeros((1, 40, 60), bool)]
)
def test_masks_that_do_not_fit_are_refused(bad):
    truth = _box(0, 0, 5, 5)

    with pytest.raises(ValueError, match="wanted bool"):
        masked_iou(bad, truth)
    with pytest.raises(ValueError, match="wanted bool"):
        next_click(truth, truth, void=bad)


def test_noc_is_the_first_click_that_reaches_the_level():
    curve = [0.5, 0.86, 0.8, 0.9, 0.95]

    assert clicks_needed(curve, 0.5, limit=20) == 1
    assert clicks_needed(curve, 0.85, limit=20) == 2
    assert clicks_needed(curve, 0.90, limit=20) == 4
    assert clicks_needed(curve, 0.99, limit=20) == 20
    assert clicks_needed(curve, 0.90, limit=3) == 3


def test_a_curve_that_ended_stays_where_it_is():
    assert [iou_after([0.5, 1.0], n) for n in (1, 2, 3, 9)] == [0.5, 1.0, 1.0, 1.0]


def test_mean_leaves_out_what_is_unknown():
    assert mean([1.0, None, 0.0, True]) == pytest.approx(2 / 3)
    assert mean([None]) is None
    assert mean([]) is None


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 50), st.integers(1, 60))
def test_evenly_spaced_indices_are_distinct_and_span_the_file(count, limit):
    chosen = evenly_spaced(count, limit)

    assert len(set(chosen)) == len(chosen) == min(count, limit)
    assert all(0 <= index < count for index in chosen)
    if len(chosen) > 1:
        gaps = np.diff(chosen)
        assert gaps.max() - gaps.min() <= 1
    assert evenly_spaced(count, None) == list(range(count))


def test_random_numbers_depend_on_the_seed_and_the_photo():
    draws = [seeded_rng(s, key).integers(1 << 60) for s in (0, 1) for key in ("a", "b")]

    assert len(set(draws)) == 4
    assert draws[0] == seeded_rng(0, "a").integers(1 << 60)


def test_wrong_phrases_are_absent_and_all_different_while_there_are_enough():
    right, absent = ["cat", "dog", "cow"], {"bus", "car", "train", "boat"}

    drawn = [draw_wrong(right, absent, seeded_rng(seed, "photo")) for seed in range(20)]

    for wrong in drawn:
        assert set(wrong) == set(right)
        assert len(set(wrong.values())) == 3
        assert set(wrong.values()) <= absent
    assert {wrong["cat"] for wrong in drawn} == absent
    assert draw_wrong(right, {"bus"}, seeded_rng(0, "photo")) == dict.fromkeys(right, "bus")
    assert draw_wrong(right, (), seeded_rng(0, "photo")) == dict.fromkeys(right)
