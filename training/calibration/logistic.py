"""Logistic regression in float64.

Platt 1999, "Probabilistic outputs for support vector machines", Section 2.2: the targets are not 1
and 0 but those of Laplace's rule, (N+ + 1) / (N+ + 2) and 1 / (N- + 2) for N+ and N- cases, so that
a few cases that happen to separate do not make a step.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from textsam.errors import require

# A pull on the slopes of one case's worth: it decides only where cases do not.
_RIDGE = 1.0

Vector = NDArray[np.float64]


def platt_targets(truth: ArrayLike) -> Vector:
    """What a perfect curve would say of (n,) cases, bool; never quite 0 or 1."""
    true = np.asarray(truth, dtype=bool)
    positive = int(true.sum())
    negative = len(true) - positive
    return np.where(true, (positive + 1) / (positive + 2), 1 / (negative + 2))


def fit_logistic(
    features: ArrayLike, targets: ArrayLike, *, ridge: float = _RIDGE
) -> tuple[Vector, float]:
    """Fit sigmoid(bias + features @ slopes) by least cross-entropy.

    Args:
        features: (n, d) finite.
        targets: (n,) probabilities, 0 to 1.
        ridge: Half of it times the squared slopes is added to the summed cross-entropy, the
            features brought to unit deviation first, so that it does not depend on their units.

    Returns:
        Slopes (d,) and the bias, for features as they came. A feature that does not vary has
        slope 0.
    """
    x = np.asarray(features, dtype=np.float64)
    y = np.asarray(targets, dtype=np.float64)
    if x.ndim != 2 or not len(x) or y.shape != (len(x),):
        raise ValueError(
            f"got features {x.shape} and targets {y.shape}; wanted (n, d) and (n,), n of at least 1"
        )
    if not (np.isfinite(x).all() and ((y >= 0) & (y <= 1)).all()):
        raise ValueError("a feature is not finite, or a target is not within 0 to 1")
    middle, spread = x.mean(axis=0), x.std(axis=0)
    varies = spread > 1e-9 * np.maximum(1.0, np.abs(middle))
    spread = np.where(varies, spread, 1.0)
    design = np.column_stack([np.where(varies, (x - middle) / spread, 0.0), np.ones(len(x))])
    pull = np.append(np.full(x.shape[1], float(ridge)), 0.0)
    solution = _minimum(design, y, pull)
    slopes = solution[:-1] / spread
    return slopes, float(solution[-1] - slopes @ middle)


def _minimum(x: Vector, y: Vector, pull: Vector) -> Vector:
    """Coefficients (d,) of a design matrix (n, d) that minimise cross-entropy and ridge."""
    optimize, expit = require("scipy.optimize", "train"), require("scipy.special", "train").expit

    def cost(beta: Vector) -> float:
        z = x @ beta
        return float((np.logaddexp(0, z) - y * z).sum() + 0.5 * (pull * beta**2).sum())

    def gradient(beta: Vector) -> Vector:
        return x.T @ (expit(x @ beta) - y) + pull * beta

    def curvature(beta: Vector) -> Vector:
        p = expit(x @ beta)
        return (x.T * (p * (1 - p))) @ x + np.diag(pull)

    start = np.zeros(x.shape[1])
    # Second order: first-order methods stop at a relative error of 1e-5 or so.
    options = {"gtol": 1e-12 * len(x)}
    found = optimize.minimize(
        cost, start, method="trust-exact", jac=gradient, hess=curvature, options=options
    )
    solution: Vector = found.x
    return solution
