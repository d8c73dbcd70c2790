"""What a handful of photos can show: bootstrap intervals, over photos, of means and differences.

A photo is drawn with all its objects, which are not independent of each other. The interval is
about other PHOTOS of this kind and about nothing else: another seed gives other weights, which the
variant "seed 1" shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

__all__ = ["Interval", "Score", "mean_interval", "paired_interval"]

_DRAWS = 4000
_LEVEL = 0.95


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
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(photos), np.full(len(photos), 1 / len(photos)), size=_DRAWS)
    means = (drawn @ sums) / (drawn @ counts)
    tail = 100 * (1 - _LEVEL) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return Interval(float(sums.sum() / counts.sum()), float(low), float(high), len(scores))


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
