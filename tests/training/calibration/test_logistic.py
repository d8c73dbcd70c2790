from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from training.calibration.curves import fit_logistic, platt_targets


def _cases(seed: int, n: int = 300, d: int = 3):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) * [1.0, 20.0, 0.01][:d] + [0.0, 300.0, 1.0][:d]
    z = (x - x.mean(0)) / x.std(0)
    y = rng.random(n) < 1 / (1 + np.exp(-(z @ np.array([1.5, -0.7, 0.2])[:d] - 0.8)))
    return x, y


def _probability(x, slopes, bias):
    return 1 / (1 + np.exp(-(x @ slopes + bias)))


def test_two_groups_have_a_closed_form():
    """One binary feature, no ridge: the curve passes through the shares of both groups."""
    x = np.repeat([[0.0], [1.0]], [40, 60], axis=0)
    y = np.concatenate([np.arange(40) < 10, np.arange(60) < 45]).astype(float)

    slopes, bias = fit_logistic(x, y, ridge=0.0)

    assert bias == pytest.approx(np.log(10 / 30), abs=1e-10)
    assert slopes[0] == pytest.approx(np.log(45 / 15) - np.log(10 / 30), abs=1e-10)


def test_without_features_it_is_the_share():
    slopes, bias = fit_logistic(np.zeros((8, 0)), [1, 1, 0, 0, 0, 0, 0, 0])

    assert slopes.shape == (0,)
    assert bias == pytest.approx(np.log(2 / 6), abs=1e-10)


@pytest.mark.parametrize("ridge", [0.0, 1.0, 30.0])
def test_it_is_the_minimum_that_scipy_finds(ridge):
    x, y = _cases(1)
    targets = platt_targets(y)
    z = (x - x.mean(0)) / x.std(0)

    def cost(beta):
        s = z @ beta[:-1] + beta[-1]
        return (np.logaddexp(0, s) - targets * s).sum() + ridge / 2 * (beta[:-1] ** 2).sum()

    best = minimize(cost, np.zeros(4), method="BFGS", options={"gtol": 1e-9}).x
    slopes, bias = fit_logistic(x, targets, ridge=ridge)

    assert slopes * x.std(0) == pytest.approx(best[:-1], abs=1e-5)
    assert bias + slopes @ x.mean(0) == pytest.approx(best[-1], abs=1e-5)


def test_units_do_not_matter():
    x, y = _cases(2)
    scale, shift = np.array([1e4, 1e-5, 3.0]), np.array([5.0, -2.0, 1e3])

    own = fit_logistic(x, platt_targets(y))
    other = fit_logistic(x * scale + shift, platt_targets(y))

    there, again = _probability(x, *own), _probability(x * scale + shift, *other)
    assert again == pytest.approx(there, abs=1e-6)


def test_without_a_ridge_the_mean_is_kept():
    """The gradient of the bias is zero: what is said is, on average, what is true."""
    x, y = _cases(3)
    said = _probability(x, *fit_logistic(x, y.astype(float), ridge=0.0))

    assert said.mean() == pytest.approx(y.mean(), abs=1e-9)


@pytest.mark.parametrize("ridge", [0.0, 1.0])
@pytest.mark.parametrize("y", [[False] * 3 + [True] * 3, [True] * 6, [False] * 6])
def test_separable_and_one_sided_cases_stay_finite(y, ridge):
    x = np.array([[-3.0], [-2.0], [-1.0], [1.0], [2.0], [3.0]])

    slopes, bias = fit_logistic(x, platt_targets(y), ridge=ridge)

    said = _probability(x, slopes, bias)
    assert np.isfinite(slopes).all()
    assert (said > 0.05).all() and (said < 0.95).all()
    if any(y) and not all(y):
        assert ((said > 0.5) == y).all()


def test_what_does_not_vary_weighs_nothing():
    x, y = _cases(5, d=1)
    constant = np.full((len(x), 1), 7.3)

    slopes, bias = fit_logistic(np.hstack([constant, x]), platt_targets(y))
    alone = fit_logistic(x, platt_targets(y))

    assert slopes[0] == 0
    assert slopes[1] == pytest.approx(alone[0][0])
    assert bias == pytest.approx(alone[1])


def test_targets_follow_laplace():
    assert platt_targets([True, True, False]) == pytest.approx([3 / 4, 3 / 4, 1 / 3])


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((0, 1)), [], "n of at least 1"),
        ([1.0, 2.0], [0, 1], r"features \(2,\)"),
        ([[1.0], [2.0]], [0, 1, 1], r"targets \(3,\)"),
        ([[1.0], [np.nan]], [0, 1], "not finite"),
        ([[1.0], [2.0]], [0, 2], "within 0 to 1"),
    ],
)
def test_bad_numbers_are_refused(x, y, message):
    with pytest.raises(ValueError, match=message):
        fit_logistic(x, y)
