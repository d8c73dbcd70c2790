"""The figures of the BSDS benchmark from its counts: ODS, OIS, AP and R50.

As the benchmark of BSDS500 (Arbelaez et al., PAMI 2011) and Dollar and Zitnick's re-implementation
of it (which added R50) collect them. F is the harmonic mean of precision and recall, of sums over
photos.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..figures.intervals import draw_photos, percentiles

Array = NDArray[np.float64]

_STEPS = 100  # between two thresholds, where the best F is looked for


def score_edges(counts: NDArray[np.int64], levels: Array, *, seed: int = 0) -> dict[str, Any]:
    """All figures of one method, from counts (photos, T, 4) of at least one photo.

    Returns:
        `ods`, the best F at one threshold for the whole set, precision and recall interpolated
        linearly between thresholds, with `ods_threshold`, `ods_precision` and `ods_recall` there,
        and `ods_low` and `ods_high`, its 95% interval over other photos of this kind; `ois`, F of
        the sums if each photo has the threshold that is best for it; `ap`, the mean of the
        precision at recall 0, .01, ..., 1, where recalls that the curve does not reach count as 0;
        `r50`, the recall where half of what is predicted is right, None if so much never is.
    """
    precision, recall = curve_of(counts.sum(0))
    best = (float(value[0]) for value in _best(precision[None], recall[None], levels))
    low, high = percentiles(ods_draws(counts, seed=seed))
    return {
        **dict(zip(("ods", "ods_threshold", "ods_precision", "ods_recall"), best, strict=True)),
        "ods_low": low,
        "ods_high": high,
        "ois": _ois(counts),
        "ap": _average_precision(precision, recall),
        "r50": _recall_at_half(precision, recall),
    }


def curve_of(counts: NDArray[np.int64]) -> tuple[Array, Array]:
    """Precision and recall (..., T) of counts (..., T, 4); 0 where nothing could be right."""
    found, drawn, right, predicted = np.moveaxis(counts.astype(np.float64), -1, 0)
    return right / np.maximum(predicted, 1), found / np.maximum(drawn, 1)


def ods_draws(counts: NDArray[np.int64], *, seed: int = 0) -> Array:
    """ODS of photos drawn with replacement: (draws,).

    Two methods on the same photos, with one seed, are drawn alike, so the difference of their draws
    is paired.
    """
    photos, levels, _ = counts.shape
    drawn = draw_photos(photos, seed=seed) @ counts.reshape(photos, -1)
    precision, recall = curve_of(drawn.reshape(-1, levels, 4))
    best, *_ = _best(precision, recall, np.arange(levels, dtype=np.float64))
    return best


def f_measure(precision: Array, recall: Array) -> Array:
    """Harmonic mean of precision and recall, of any shape; 0 where both are 0."""
    both: Array = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return both


def _best(precision: Array, recall: Array, levels: Array) -> tuple[Array, Array, Array, Array]:
    """Best F of curves (D, T) with its threshold, precision and recall, each (D,)."""
    best = f_measure(precision[:, 0], recall[:, 0])
    where = np.full(len(best), levels[0])
    p, r = precision[:, 0].copy(), recall[:, 0].copy()
    for i in range(1, len(levels)):
        # The bootstrap's draws take the thresholds alone: steps between would cost 100 times.
        for share in np.linspace(0, 1, _STEPS if len(best) == 1 else 2)[1:]:
            here_p = precision[:, i - 1] * (1 - share) + precision[:, i] * share
            here_r = recall[:, i - 1] * (1 - share) + recall[:, i] * share
            here = f_measure(here_p, here_r)
            better = here > best
            best, p, r = (
                np.where(better, new, old) for new, old in ((here, best), (here_p, p), (here_r, r))
            )
            where = np.where(better, levels[i - 1] * (1 - share) + levels[i] * share, where)
    return best, where, p, r


def _ois(counts: NDArray[np.int64]) -> float:
    """F of the sums at every photo's best threshold; without a drawing, that predicts least."""
    chosen = f_measure(*curve_of(counts)).argmax(1)
    chosen[counts[:, 0, 1] == 0] = counts.shape[1] - 1
    precision, recall = curve_of(counts[np.arange(len(counts)), chosen].sum(0))
    return float(f_measure(precision, recall))


def _average_precision(precision: Array, recall: Array) -> float:
    known, first = np.unique(recall, return_index=True)
    if len(known) < 2:
        return 0.0
    at = np.linspace(0, 1, 101)
    inside = (at >= known[0]) & (at <= known[-1])
    # The benchmark divides the sum of 101 values by 100.
    return float(np.interp(at[inside], known, precision[first]).sum() / 100)


def _recall_at_half(precision: Array, recall: Array) -> float | None:
    known, first = np.unique(precision, return_index=True)
    if known[-1] < 0.5:
        return None
    return float(np.interp(max(known[0], 0.5), known, recall[first]))
