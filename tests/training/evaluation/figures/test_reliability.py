"""Calibration error and bootstrap intervals: exact cases and what must hold for any."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.evaluation.figures.intervals import ratio_interval
from training.evaluation.figures.probabilities import BINS, Claim, calibration_error, reliability

CLAIMS = st.lists(
    st.builds(Claim, probability=st.floats(0, 1), true=st.booleans()), min_size=1, max_size=40
)


def _claims(probability: float, true: int, false: int) -> list[Claim]:
    return [Claim(probability=probability, true=i < true) for i in range(true + false)]


def test_who_says_the_share_makes_no_error():
    assert calibration_error(_claims(0.75, 3, 1)) == pytest.approx(0)
    assert calibration_error(_claims(1.0, 5, 0) + _claims(0.0, 0, 5)) == pytest.approx(0)


def test_bins_are_weighted_by_what_is_in_them():
    sure, unsure = _claims(0.9, 0, 1), _claims(0.1, 0, 3)

    assert calibration_error(sure + unsure) == pytest.approx((0.9 + 3 * 0.1) / 4)
    assert calibration_error([]) is None
    first, last = reliability(sure + unsure)
    assert (first["count"], first["said"], first["true"]) == (3, pytest.approx(0.1), 0.0)
    assert last["low"] <= 0.9 < last["high"]


def test_errors_of_opposite_sign_in_one_bin_cancel_and_in_two_do_not():
    near = [Claim(probability=0.50, true=True), Claim(probability=0.51, true=False)]
    apart = [Claim(probability=0.2, true=True), Claim(probability=0.8, true=False)]

    assert calibration_error(near) == pytest.approx(0.005)
    assert calibration_error(apart) == pytest.approx(0.8)


@given(CLAIMS)
def test_it_is_a_mean_of_gaps_and_never_less_than_the_gap_of_the_means(claims):
    error = calibration_error(claims)
    gap = abs(np.mean([c.probability for c in claims]) - np.mean([c.true for c in claims]))

    assert error is not None
    assert gap - 1e-9 <= error <= 1
    rows = reliability(claims)
    assert sum(row["count"] for row in rows) == len(claims)
    assert all(row["low"] - 1e-9 <= row["said"] <= row["high"] + 1e-9 for row in rows)
    assert len(rows) <= BINS


@pytest.mark.parametrize("probability", [-0.1, 1.1, float("nan")])
def test_what_is_no_probability_is_refused(probability):
    with pytest.raises(ValueError, match="wanted 0 to 1"):
        calibration_error([Claim(probability=probability, true=True)])


def test_the_interval_holds_the_ratio_and_narrows_with_more_photos():
    def rows(photos: int) -> list[tuple[str, float, float]]:
        return [(f"photo {i}", i % 2, 1) for i in range(photos)]

    few, many = ratio_interval(rows(10)), ratio_interval(rows(1000))
    assert few is not None and many is not None
    assert few[0] < many[0] < 0.5 < many[1] < few[1]
    assert many[1] - many[0] == pytest.approx(2 * 1.96 * 0.5 / 1000**0.5, rel=0.1)
    assert ratio_interval(rows(10)) == few


def test_photos_are_drawn_with_all_that_they_hold():
    one_photo = [("a", i % 2, 1) for i in range(100)]

    assert ratio_interval(one_photo) == (0.5, 0.5)  # only one photo to draw
    assert ratio_interval([]) is None
    assert ratio_interval([("a", 0, 0)]) is None
