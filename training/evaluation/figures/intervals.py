"""Means and their 95% bootstrap intervals over photos.

A photo is drawn with everything that was measured on it, since that is not independent. An interval
says what other PHOTOS of this kind would give and nothing else: another seed of a training gives
other weights, for example.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

_DRAWS = 4000
_TAIL = 2.5  # percent on either side: a 95% interval


@dataclass(frozen=True, kw_only=True)
class Score:
    """A figure of one object: its photo, its name within the photo, and a value in [0, 1]."""

    photo: str
    object: str
    value: float


@dataclass(frozen=True)
class Interval:
    """A mean over objects, and the bootstrap's 95% interval of it (percentiles)."""

    mean: float
    low: float
    high: float
    objects: int

    @property
    def is_clear_of_zero(self) -> bool:
        """Whether zero lies outside."""
        return self.low > 0 or self.high < 0

    @property
    def signed_mean(self) -> str:
        """The mean of a difference with its sign, and a star if the interval leaves out zero."""
        return f"{self.mean:+.3f}{'*' if self.is_clear_of_zero else ''}"


def mean(values: Iterable[float | bool | None]) -> float | None:
    """Mean of the values that are known; None if there is none."""
    known = [float(value) for value in values if value is not None]
    return sum(known) / len(known) if known else None


def draw_photos(count: int, *, seed: int = 0) -> NDArray[np.int64]:
    """How often each of `count` > 0 photos is drawn: (draws, count). One seed, the same draws."""
    chance = np.full(count, 1 / count)
    return np.random.default_rng(seed).multinomial(count, chance, size=_DRAWS)


def percentiles(draws: NDArray[np.float64] | Sequence[float]) -> tuple[float, float]:
    """Low and high end of the 95% interval of a figure, given what it was in each draw (D,)."""
    low, high = np.percentile(draws, [_TAIL, 100 - _TAIL])
    return float(low), float(high)


def mean_interval(scores: Sequence[Score], *, seed: int = 0) -> Interval:
    """Mean of the values, with its interval."""
    # Photos in sorted order: which photo a draw repeats must not depend on the order of scores.
    rows = sorted(((s.photo, s.value, 1.0) for s in scores), key=lambda row: row[0])
    bounds = ratio_interval(rows, seed=seed)
    if bounds is None:
        raise ValueError("an interval needs at least one score, got none")
    return Interval(sum(row[1] for row in rows) / len(rows), *bounds, len(rows))


def paired_interval(
    scores: Sequence[Score], reference: Sequence[Score], *, seed: int = 0
) -> Interval:
    """Mean of the differences, object by object, with its interval."""
    before = {(score.photo, score.object): score.value for score in reference}
    objects = {(score.photo, score.object) for score in scores}
    if before.keys() != objects:
        raise ValueError(
            f"{len(objects)} scores and {len(before)} of the reference, "
            f"{len(before.keys() & objects)} of them of the same objects; wanted the same objects "
            "in both"
        )
    differences = [replace(s, value=s.value - before[s.photo, s.object]) for s in scores]
    return mean_interval(differences, seed=seed)


def ratio_interval(
    counts: Iterable[tuple[str, float, float]], *, seed: int = 0
) -> tuple[float, float] | None:
    """95% interval (percentiles) of sum of numerators / sum of denominators.

    Counts are (photo, numerator, denominator), any number for a photo; None without a photo that
    has a denominator.
    """
    rows = list(counts)
    place = {photo: index for index, photo in enumerate(dict.fromkeys(row[0] for row in rows))}
    sums = np.zeros((len(place), 2))
    for photo, numerator, denominator in rows:
        sums[place[photo]] += numerator, denominator
    if not len(sums) or not sums[:, 1].any():
        return None
    drawn = draw_photos(len(sums), seed=seed) @ sums
    drawn = drawn[drawn[:, 1] > 0]  # a draw may miss every photo that has a denominator
    return percentiles(drawn[:, 0] / drawn[:, 1])
