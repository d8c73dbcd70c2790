"""What a set of photos can show: bootstrap intervals, over photos, of means, differences, ratios.

A photo is drawn with everything that was asked of it, which is not independent. The interval is
about other PHOTOS of this kind and about nothing else: another seed of a training gives other
weights, for example.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Interval",
    "Score",
    "draw_photos",
    "mean_interval",
    "paired_interval",
    "percentiles",
    "ratio_interval",
]

_DRAWS = 4000
_TAIL = 2.5  # percent on either side: a 95% interval


@dataclass(frozen=True, kw_only=True)
class Score:
    """A figure of one object: its photo, its name within the photo, and a value in [0, 1]."""

    photo: str
    object: str
    value: float


class Interval(NamedTuple):
    """A mean over objects, and the bootstrap's 95% interval of it (percentiles)."""

    mean: float
    low: float
    high: float
    objects: int

    @property
    def is_clear_of_zero(self) -> bool:
        """Whether zero lies outside."""
        return self.low > 0 or self.high < 0


def draw_photos(count: int, *, seed: int = 0) -> NDArray[np.int64]:
    """How often each of `count` > 0 photos is drawn: (draws, count). One seed, the same draws."""
    chance = np.full(count, 1 / count)
    return np.random.default_rng(seed).multinomial(count, chance, size=_DRAWS)


def percentiles(draws: NDArray[np.float64]) -> tuple[float, float]:
    """Low and high end of the 95% interval of a figure, given what it was in each draw (D,)."""
    low, high = np.percentile(draws, [_TAIL, 100 - _TAIL])
    return float(low), float(high)


def mean_interval(scores: Sequence[Score], *, seed: int = 0) -> Interval:
    """Mean of the values, with its interval.

    Raises:
        ValueError: There is no score.
    """
    if not scores:
        raise ValueError("an interval needs at least one score, got none")
    photos = sorted({score.photo for score in scores})
    place = {photo: index for index, photo in enumerate(photos)}
    sums, counts = np.zeros(len(photos)), np.zeros(len(photos))
    for score in scores:
        sums[place[score.photo]] += score.value
        counts[place[score.photo]] += 1
    drawn = draw_photos(len(photos), seed=seed)
    low, high = percentiles((drawn @ sums) / (drawn @ counts))
    return Interval(float(sums.sum() / counts.sum()), low, high, len(scores))


def paired_interval(
    scores: Sequence[Score], reference: Sequence[Score], *, seed: int = 0
) -> Interval:
    """Mean of the differences, object by object, with its interval.

    Raises:
        ValueError: The two are not about the same objects.
    """
    before = {(score.photo, score.object): score.value for score in reference}
    after = {(score.photo, score.object): score.value for score in scores}
    if before.keys() != after.keys():
        raise ValueError(
            f"{len(after)} scores and {len(before)} of the reference, {len(before.keys() & after)} "
            "of them of the same objects; wanted the same objects in both"
        )
    differences = [
        Score(photo=photo, object=name, value=value - before[photo, name])
        for (photo, name), value in after.items()
    ]
    return mean_interval(differences, seed=seed)


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
    drawn = draw_photos(len(sums), seed=seed) @ sums
    drawn = drawn[drawn[:, 1] > 0]
    return percentiles(drawn[:, 0] / drawn[:, 1])
