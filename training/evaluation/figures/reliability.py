"""Whether a probability means what it says: expected calibration error.

Guo et al., "On Calibration of Modern Neural Networks" (arXiv 1706.04599), Section 2, Equation 3:
probabilities are sorted into bins of equal width (15, as there), and the error is the mean over
bins, weighted by their counts, of |mean probability - share that is true|.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["BINS", "Claim", "calibration_error", "reliability"]

BINS = 15


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A probability that something holds, and whether it does."""

    probability: float
    true: bool


def reliability(claims: Sequence[Claim], *, bins: int = BINS) -> list[dict[str, Any]]:
    """The filled bins, from low to high: `low`, `high`, `count`, `said` (mean), `true` (share).

    Raises:
        ValueError: A probability is not in 0 to 1.
    """
    said = np.array([claim.probability for claim in claims], dtype=np.float64)
    true = np.array([claim.true for claim in claims], dtype=np.float64)
    if not ((said >= 0) & (said <= 1)).all():
        raise ValueError(
            f"got probabilities from {said.min()} to {said.max()}; wanted 0 to 1, none NaN"
        )
    place = np.minimum((said * bins).astype(int), bins - 1)
    return [
        {
            "low": index / bins,
            "high": (index + 1) / bins,
            "count": int((place == index).sum()),
            "said": float(said[place == index].mean()),
            "true": float(true[place == index].mean()),
        }
        for index in np.unique(place).tolist()
    ]


def calibration_error(claims: Sequence[Claim], *, bins: int = BINS) -> float | None:
    """Expected calibration error, 0 to 1; None without a claim."""
    rows = reliability(claims, bins=bins)
    total = sum(row["count"] for row in rows)
    return sum(r["count"] * abs(r["said"] - r["true"]) for r in rows) / total if total else None
