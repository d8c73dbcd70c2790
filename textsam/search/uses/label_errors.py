"""Labels that a mask's neighbours do not share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from textsam.errors import PromptError
from textsam.search.uses.blocks import checked_vectors, group_numbers, nearest_rows

__all__ = ["Suspect", "find_label_errors"]

_SHARPNESS = 20.0  # how fast a neighbour's vote falls with its cosine


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """A mask whose neighbours carry another label.

    Attributes:
        row: Its row number.
        label: What it is called.
        suggestion: What its neighbours are called.
        share: Share of their votes for its own label, 0 to 1.
        other: Share of their votes for the suggestion.
        neighbours: Row numbers of the neighbours, nearest first: the evidence to show.
    """

    row: int
    label: str
    suggestion: str
    share: float
    other: float
    neighbours: tuple[int, ...]


def find_label_errors(
    vectors: npt.ArrayLike,
    labels: Sequence[str],
    *,
    neighbours: int = 10,
    photos: Sequence[Any] | None = None,
    margin: float = 0.5,
) -> list[Suspect]:
    """Masks whose neighbours agree on another label; first where they are near and of one mind.

    The nearest neighbours vote, near ones more, and each vote is divided by how common its label
    is (to the power of a half), or a rare label would always be outvoted. It is a list to look
    through: a hard but right label stands on it too.

    Args:
        vectors: (N, D) of one space; "clip" tells names better than "sam".
        labels: N labels.
        neighbours: How many vote.
        photos: Name of each mask's photo; then only masks of other photos vote, since two masks of
            one photo share light, surroundings and the annotator's mistake.
        margin: By how much the suggestion's share of votes is above the own label's, 0 to 1.

    Raises:
        PromptError: Vectors, labels, photos, neighbours or margin that cannot be meant.
    """
    if neighbours < 1 or not 0 <= margin <= 1:
        raise PromptError(
            f"neighbours={neighbours}, margin={margin}; wanted at least 1, and a share 0 to 1"
        )
    rows = checked_vectors(vectors)
    group_numbers(labels, len(rows), name="labels")
    groups = group_numbers(photos, len(rows), name="photos")
    names, of_row = np.unique(np.asarray(labels, dtype=object), return_inverse=True)
    nearest, cosines = nearest_rows(rows, neighbours, groups)
    votes = np.zeros((len(rows), len(names)))
    known = nearest >= 0
    # Relative to the nearest one: a constant cosine more for all changes nothing.
    weights = np.exp(
        _SHARPNESS * (cosines - cosines[:, :1]), where=known, out=np.zeros(known.shape)
    )
    weights /= np.sqrt(np.bincount(of_row, minlength=len(names)))[of_row[nearest]]
    at = np.broadcast_to(np.arange(len(rows))[:, None], nearest.shape)
    np.add.at(votes, (at[known], of_row[nearest[known]]), weights[known])
    votes /= np.maximum(votes.sum(1, keepdims=True), np.finfo(float).tiny)
    own = votes[np.arange(len(rows)), of_row]
    best = votes.argmax(1)
    most = votes[np.arange(len(rows)), best]
    # Neighbours that are far away know little, however much they agree.
    certain = (most - own) * np.nan_to_num(cosines[:, 0])
    suspects = np.flatnonzero((best != of_row) & (most - own >= margin))
    return [
        Suspect(
            row=int(row),
            label=str(names[of_row[row]]),
            suggestion=str(names[best[row]]),
            share=float(own[row]),
            other=float(most[row]),
            neighbours=tuple(int(near) for near in nearest[row] if near >= 0),
        )
        for row in suspects[np.argsort(-certain[suspects], kind="stable")]
    ]
