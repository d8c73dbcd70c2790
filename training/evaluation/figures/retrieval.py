"""Precision at 10 of rankings by exact cosine, a figure for each label."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .bootstrap import Score

__all__ = [
    "DEPTH",
    "Embedded",
    "Query",
    "_by_label",
    "chance_of",
    "precision",
    "queries_of",
    "ranked",
]

DEPTH = 10
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Embedded:
    """Masks of all sets and their vectors.

    Attributes:
        sets: (N,) name of the set.
        photos: (N,) name of the photo, with its set's.
        labels: (N,) label.
        vectors: By the way they were made, (N, D) of length 1.
        texts: By the same ways, those that a phrase reaches: label -> (D,) of length 1.
    """

    sets: npt.NDArray[np.str_]
    photos: npt.NDArray[np.str_]
    labels: npt.NDArray[np.str_]
    vectors: Mapping[str, npt.NDArray[np.float32]]
    texts: Mapping[str, Mapping[str, npt.NDArray[np.float32]]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Query:
    """One question and what is searched for it.

    Attributes:
        label: What counts as right.
        row: The mask that asks; None for a phrase.
        gallery: Rows that are searched, at least one of them right.
    """

    label: str
    row: int | None
    gallery: Rows


def queries_of(data: Embedded, task: str, name: str) -> list[Query]:
    """The queries of a task about a set; those that nothing in the gallery answers are left out.

    Args:
        data: All masks.
        task: "text": each label of the set, in the set. "mask": each mask, in the set without the
            query's own photo. "mask, other sets": each mask of the set, in all other sets.
        name: The set.
    """
    own = np.flatnonzero(data.sets == name)
    if task == "text":
        asked = [Query(label=str(c), row=None, gallery=own) for c in np.unique(data.labels[own])]
    elif task == "mask":
        asked = [
            Query(
                label=str(data.labels[row]),
                row=int(row),
                gallery=own[data.photos[own] != data.photos[row]],
            )
            for row in own
        ]
    elif task == "mask, other sets":
        others = np.flatnonzero(data.sets != name)
        asked = [Query(label=str(data.labels[row]), row=int(row), gallery=others) for row in own]
    else:
        raise ValueError(f"task {task!r}; wanted 'text', 'mask' or 'mask, other sets'")
    return [q for q in asked if (data.labels[q.gallery] == q.label).any()]


def precision(cosines: npt.NDArray[np.float32], right: npt.NDArray[np.bool_]) -> float:
    """Share of right ones among the first 10, or among the first R if only R < 10 are right.

    Without that bound no ranking could reach 1 for a label with few masks.

    Args:
        cosines: (M,) with the query.
        right: (M,) with at least one true.
    """
    depth = min(DEPTH, int(right.sum()))
    first = np.argsort(-cosines, kind="stable")[:depth]
    return float(right[first].mean())


def chance_of(data: Embedded, queries: Iterable[Query]) -> list[Score]:
    """What a random order is expected to reach: the share of right ones in the gallery."""
    return _by_label(
        (query.label, float((data.labels[query.gallery] == query.label).mean()))
        for query in queries
    )


def ranked(data: Embedded, queries: Sequence[Query], way: str) -> list[Score]:
    """Precision of one way of embedding, a mean for each label."""
    vectors = data.vectors[way]
    values = []
    for query in queries:
        asking = data.texts[way][query.label] if query.row is None else vectors[query.row]
        right = data.labels[query.gallery] == query.label
        values.append((query.label, precision(vectors[query.gallery] @ asking, right)))
    return _by_label(values)


def _by_label(values: Iterable[tuple[str, float]]) -> list[Score]:
    """One score a label, the mean of its queries: 100 people count no more than 3 forks.

    The label stands in the place of the photo, so that intervals are about other labels.
    """
    by_label: dict[str, list[float]] = defaultdict(list)
    for label, value in values:
        by_label[label].append(value)
    return [
        Score(photo=label, object=label, value=float(np.mean(found)))
        for label, found in sorted(by_label.items())
    ]
