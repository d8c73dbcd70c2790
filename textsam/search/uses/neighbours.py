"""What the nearest neighbours of masks say: duplicates and label errors, by exact cosines.

Cosines are computed for one block of rows at a time, so that memory grows with the number of rows,
not with its square.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from textsam.errors import PromptError
from textsam.values.cells import joined

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

_BLOCK_BYTES = 64 * 1024 * 1024  # cosines that `row_blocks` computes at once
# Cosine of vectors that are the same up to rounding: identical pixels, or a lossless copy.
_EXACT_COSINE = 0.9999
_SHARPNESS = 20.0  # a vote is exp(_SHARPNESS * cosine)


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """A group of masks, connected by pairs with a high cosine.

    Attributes:
        rows: At least two row numbers, ascending.
        min_cosine: The lowest cosine among the pairs that connect the group.
        exact: Whether all these pairs are the same up to rounding.
    """

    rows: tuple[int, ...]
    min_cosine: float
    exact: bool


def find_duplicates(
    vectors: npt.ArrayLike, *, threshold: float = 0.97, photos: Sequence[Any] | None = None
) -> list[Duplicates]:
    """Group masks that look the same.

    Groups are connected components of the pairs above the threshold: a series of photos that
    changes little by little is one group, and a threshold that is too low joins everything. Look at
    the result for two or three thresholds; a good one depends on the space and the model. The
    default suits the space "clip" of `tiny`.

    Args:
        vectors: (N, D) of one space.
        threshold: Minimum cosine of a pair, in (0, 1].
        photos: The photo of each mask. Masks of one photo are then not compared: a flock holds
            many sheep that look alike, and none of them is a duplicate.

    Returns:
        Groups, sorted by `min_cosine`, highest first.

    Raises:
        PromptError: Invalid vectors or threshold, or a number of photos other than N.
    """
    if not 0 < threshold <= 1:
        raise PromptError(f"threshold={threshold}; wanted a cosine above 0 and at most 1")
    rows = unit_rows(vectors)
    photo_numbers = group_numbers(photos, len(rows), name="photos")
    pairs: list[tuple[IntArray, IntArray, FloatArray]] = []
    for start, block in row_blocks(rows):
        own_photo = photo_numbers[start : start + len(block), None]
        # The small slack keeps identical vectors at threshold 1 in spite of rounding.
        near = (block >= threshold - 1e-6) & (own_photo != photo_numbers[None])
        # Each pair once: the second row comes after the first.
        near &= np.arange(len(rows))[None] > np.arange(start, start + len(block))[:, None]
        first, second = np.nonzero(near)
        pairs.append((first + start, second, block[first, second]))
    if not pairs:
        return []
    first, second, cosines = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    roots = joined(len(rows), first, second)
    groups = []
    for root in np.unique(roots[first]):
        lowest = float(cosines[roots[first] == root].min())
        members = tuple(int(row) for row in np.flatnonzero(roots == root))
        groups.append(Duplicates(rows=members, min_cosine=lowest, exact=lowest >= _EXACT_COSINE))
    return sorted(groups, key=lambda group: -group.min_cosine)


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
    nearest: IntArray,
    cosines: FloatArray,
    label_numbers: IntArray,
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


def best_columns(values: FloatArray, k: int) -> IntArray:
    """Columns of the k highest values of each row, highest first, equal ones in order."""
    if k >= values.shape[1]:
        return np.argsort(-values, axis=1, kind="stable")
    # argpartition returns columns in any order; sorting them first makes the argsort break ties
    # by column.
    chosen = np.sort(np.argpartition(-values, k - 1, axis=1)[:, :k], axis=1)
    order = np.argsort(-np.take_along_axis(values, chosen, axis=1), axis=1, kind="stable")
    return np.take_along_axis(chosen, order, axis=1)


def unit_rows(vectors: npt.ArrayLike) -> FloatArray:
    """Vectors (N, D) as float32 of length 1."""
    rows = np.asarray(vectors, dtype=np.float32)
    if rows.ndim != 2:
        raise PromptError(f"vectors have shape {rows.shape}; wanted (N, D), a row for each mask")
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    bad = np.flatnonzero(~((lengths[:, 0] > 0) & np.isfinite(lengths[:, 0])))
    if len(bad):
        raise PromptError(
            f"vector {bad[0]} has length {lengths[bad[0], 0]}, so it has no direction; wanted "
            "embeddings of masks that are not empty"
        )
    return np.asarray(rows / lengths, dtype=np.float32)


def group_numbers(groups: Sequence[Any] | None, count: int, *, name: str) -> IntArray:
    """Number the groups of N rows from 0; without groups every row is its own group."""
    if groups is None:
        return np.arange(count)
    if len(groups) != count:
        raise PromptError(f"{len(groups)} {name} for {count} vectors; wanted one for each")
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    return np.array([numbers[group] for group in groups], dtype=np.int64)


def row_blocks(vectors: FloatArray) -> Iterator[tuple[int, FloatArray]]:
    """First row number and cosines (n, N) of each block of n rows with all N rows."""
    step = max(1, _BLOCK_BYTES // (4 * max(1, len(vectors))))
    for start in range(0, len(vectors), step):
        yield start, vectors[start : start + step] @ vectors.T


def nearest_of_other_groups(
    vectors: FloatArray, k: int, groups: IntArray
) -> tuple[IntArray, FloatArray]:
    """The nearest rows of other groups for every row of (N, D) unit vectors, nearest first.

    Returns:
        Row numbers and cosines, (N, k) each; -1 and NaN where other groups have fewer than k rows.
    """
    neighbours = np.full((len(vectors), k), -1, dtype=np.int64)
    neighbour_cosines = np.full((len(vectors), k), np.nan, dtype=np.float32)
    width = min(k, len(vectors))
    for start, cosines in row_blocks(vectors):
        part = slice(start, start + len(cosines))
        cosines[groups[part, None] == groups[None]] = -np.inf
        best = best_columns(cosines, width)
        values = np.take_along_axis(cosines, best, axis=1)
        # Rows of the same group can be among the best only where nothing else is left.
        valid = np.isfinite(values)
        neighbours[part, :width] = np.where(valid, best, -1)
        neighbour_cosines[part, :width] = np.where(valid, values, np.nan)
    return neighbours, neighbour_cosines
