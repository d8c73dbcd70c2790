"""What a set of photos can show: bootstrap intervals, over photos, of ratios of counts.

A photo is drawn with everything that was asked of it, which is not independent. The interval is
about other photos of this kind and about nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

__all__ = ["ratio_interval"]

_DRAWS = 2000
_TAIL = 2.5  # percent on either side: a 95% interval


def ratio_interval(
    counts: Iterable[tuple[str, float, float]], *, seed: int = 0
) -> tuple[float, float] | None:
    """95% interval (percentiles) of sum of numerators / sum of denominators.

    Args:
        counts: (photo, numerator, denominator), any number for a photo.
        seed: Decides the draws.

    Returns:
        Low and high; None without a photo that has a denominator.
    """
    rows = list(counts)
    place = {photo: index for index, photo in enumerate(dict.fromkeys(row[0] for row in rows))}
    sums = np.zeros((len(place), 2))
    for photo, numerator, denominator in rows:
        sums[place[photo]] += numerator, denominator
    if not len(sums) or not sums[:, 1].any():
        return None
    chance = np.full(len(sums), 1 / len(sums))
    drawn = np.random.default_rng(seed).multinomial(len(sums), chance, size=_DRAWS) @ sums
    drawn = drawn[drawn[:, 1] > 0]
    low, high = np.percentile(drawn[:, 0] / drawn[:, 1], [_TAIL, 100 - _TAIL])
    return float(low), float(high)
