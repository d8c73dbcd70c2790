"""Logistic regression by Newton's method, in float64.

Platt 1999, "Probabilistic outputs for support vector machines", Section 2.2: the targets are not 1
and 0 but what Laplace's rule says after so many cases, (N+ + 1) / (N+ + 2) and 1 / (N- + 2), so
that a few cases that happen to separate do not make a step. Newton's steps are halved until they
improve (Lin, Lin and Weng 2007, "A note on Platt's probabilistic outputs", Section 3).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["fit_logistic", "platt_targets"]

_STEPS = 100
_HALVINGS = 40
_CLOSE = 1e-12  # of the gradient, relative to the number of cases
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

    Raises:
        ValueError: There is no case, shapes disagree, or a number is not finite.
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
    found = _newton(design, y, pull, free=np.append(varies, True))
    slopes = found[:-1] / spread
    return slopes, float(found[-1] - slopes @ middle)


def _newton(x: Vector, y: Vector, pull: Vector, *, free: NDArray[np.bool_]) -> Vector:
    """Coefficients (d + 1,) of a design matrix whose last column is ones; the rest stays 0."""
    x, pull = x[:, free], pull[free]
    beta = np.zeros(x.shape[1])
    cost = _cost(beta, x, y, pull)
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-np.clip(x @ beta, -700, 700)))
        gradient = x.T @ (p - y) + pull * beta
        if np.abs(gradient).max() <= _CLOSE * len(x):
            break
        curvature = (x.T * (p * (1 - p))) @ x + np.diag(pull)
        # Where a curve is flat everywhere the curvature vanishes; a step stays a step down.
        curvature[np.diag_indices_from(curvature)] += 1e-12 * len(x)
        step = np.linalg.solve(curvature, gradient)
        for _ in range(_HALVINGS):
            candidate = _cost(beta - step, x, y, pull)
            if candidate <= cost:
                break
            step /= 2
        else:
            break  # as close as float64 comes
        beta, cost = beta - step, candidate
    found = np.zeros(len(free))
    found[free] = beta
    return found


def _cost(beta: Vector, x: Vector, y: Vector, pull: Vector) -> float:
    z = x @ beta
    return float((np.logaddexp(0, z) - y * z).sum() + 0.5 * (pull * beta**2).sum())
