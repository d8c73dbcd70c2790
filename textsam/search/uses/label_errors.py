"""Masks whose label differs from the labels of their nearest neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from textsam.errors import PromptError
from textsam.search.exact import group_numbers, nearest_of_other_groups, unit_rows

__all__ = ["Suspect", "find_label_errors"]

_SHARPNESS = 20.0  # a vote is exp(_SHARPNESS * cosine)


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """A mask whose neighbours carry another label.

    Attributes:
        row: Its row number.
        label: Its label.
        suggestion: The label that most of its neighbours carry.
        label_share: Share of the votes for its own label, 0 to 1.
        suggestion_share: Share of the votes for the suggestion, 0 to 1.
        neighbours: Row numbers of the neighbours, nearest first: the evidence to look at.
    """

    row: int
    label: str
    suggestion: str
    label_share: float
    suggestion_share: float
    neighbours: tuple[int, ...]


def find_label_errors(
    vectors: npt.ArrayLike,
    labels: Sequence[str],
    *,
    neighbours: int = 10,
    photos: Sequence[Any] | None = None,
    margin: float = 0.5,
) -> list[Suspect]:
    """List masks whose neighbours agree on another label, the clearest cases first.

    The nearest neighbours vote, near ones more. Each vote is divided by the square root of how
    often its label occurs, since a rare label would otherwise always be outvoted. The result is a
    list to look through: correct labels of unusual masks are on it too.

    Args:
        vectors: (N, D) of one space; "clip" separates names better than "sam".
        labels: N labels.
        neighbours: Number of neighbours that vote.
        photos: The photo of each mask. Then only masks of other photos vote, since masks of one
            photo share light, surroundings and the annotator's mistakes.
        margin: Minimum difference between the shares of the suggestion and of the own label.

    Raises:
        PromptError: Invalid vectors, neighbours or margin, or a number of labels or photos other
            than N.
    """
    if neighbours < 1 or not 0 <= margin <= 1:
        raise PromptError(
            f"neighbours={neighbours}, margin={margin}; wanted at least 1, and a share 0 to 1"
        )
    rows = unit_rows(vectors)
    group_numbers(labels, len(rows), name="labels")  # checks their number
    groups = group_numbers(photos, len(rows), name="photos")
    names, label_numbers = np.unique(np.asarray(labels, dtype=object), return_inverse=True)
    nearest, cosines = nearest_of_other_groups(rows, neighbours, groups)
    votes = _votes(nearest, cosines, label_numbers, len(names))
    own = votes[np.arange(len(rows)), label_numbers]
    best = votes.argmax(1)
    best_share = votes[np.arange(len(rows)), best]
    # Distant neighbours are weak evidence, however much they agree.
    confidence = (best_share - own) * np.nan_to_num(cosines[:, 0])
    suspects = np.flatnonzero((best != label_numbers) & (best_share - own >= margin))
    return [
        Suspect(
            row=int(row),
            label=str(names[label_numbers[row]]),
            suggestion=str(names[best[row]]),
            label_share=float(own[row]),
            suggestion_share=float(best_share[row]),
            neighbours=tuple(int(near) for near in nearest[row] if near >= 0),
        )
        for row in suspects[np.argsort(-confidence[suspects], kind="stable")]
    ]


def _votes(
    nearest: npt.NDArray[np.int64],
    cosines: npt.NDArray[np.float32],
    label_numbers: npt.NDArray[np.int64],
    count: int,
) -> npt.NDArray[np.float64]:
    """Share of the neighbours' votes for each of `count` labels, (N, count)."""
    votes = np.zeros((len(nearest), count))
    valid = nearest >= 0
    # Relative to the nearest one, so that adding a constant to all cosines changes nothing.
    weights = np.exp(
        _SHARPNESS * (cosines - cosines[:, :1]), where=valid, out=np.zeros(valid.shape)
    )
    weights /= np.sqrt(np.bincount(label_numbers, minlength=count))[label_numbers[nearest]]
    rows = np.broadcast_to(np.arange(len(nearest))[:, None], nearest.shape)
    np.add.at(votes, (rows[valid], label_numbers[nearest[valid]]), weights[valid])
    # A row without neighbours has no votes; `tiny` keeps 0 / 0 from being NaN.
    return np.asarray(votes / np.maximum(votes.sum(1, keepdims=True), np.finfo(float).tiny))
