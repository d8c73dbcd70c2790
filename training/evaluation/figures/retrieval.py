"""Precision at 10 of rankings by exact cosine, a figure for each label."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .intervals import Score

DEPTH = 10
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskVectorTable:
    """Masks of all sets and their vectors."""

    sets: npt.NDArray[np.str_]  # (N,) name of the set
    photos: npt.NDArray[np.str_]  # (N,) name of the photo, with its set's
    labels: npt.NDArray[np.str_]  # (N,) label
    vectors: Mapping[str, npt.NDArray[np.float32]]  # by embedding method, (N, D) of length 1
    # By those methods that a phrase can be compared with: label -> (D,) of length 1.
    texts: Mapping[str, Mapping[str, npt.NDArray[np.float32]]]


@dataclass(frozen=True, kw_only=True, eq=False)
class RankedQuery:
    """One question and what is searched for it."""

    label: str  # what counts as right
    row: int | None  # the mask that is the query; None for a phrase
    gallery: Rows  # rows that are searched, at least one of them right


def queries_of(data: MaskVectorTable, task: str, name: str) -> list[RankedQuery]:
    """The queries of a task about a set; those without a right row in the gallery are left out.

    Args:
        data: All masks.
        task: "text": each label of the set, in the set. "mask": each mask, in the set without the
            query's own photo. "mask, other sets": each mask of the set, in all other sets.
        name: The set.
    """
    own, others = np.flatnonzero(data.sets == name), np.flatnonzero(data.sets != name)
    queries: list[RankedQuery]
    if task == "text":
        labels = np.unique(data.labels[own])
        queries = [RankedQuery(label=str(c), row=None, gallery=own) for c in labels]
    elif task in ("mask", "mask, other sets"):
        queries = []
        for row in own.tolist():
            gallery = others
            # The query's own photo is left out: its other masks share light, camera and scene.
            if task == "mask":
                gallery = own[data.photos[own] != data.photos[row]]
            queries.append(RankedQuery(label=str(data.labels[row]), row=row, gallery=gallery))
    else:
        raise ValueError(f"task {task!r}; wanted 'text', 'mask' or 'mask, other sets'")
    return [q for q in queries if (data.labels[q.gallery] == q.label).any()]


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


def chance_of(data: MaskVectorTable, queries: Iterable[RankedQuery]) -> list[Score]:
    """The expected precision of a random order: the share of right ones in the gallery."""
    return label_scores(
        (query.label, float((data.labels[query.gallery] == query.label).mean()))
        for query in queries
    )


def ranked(data: MaskVectorTable, queries: Sequence[RankedQuery], method: str) -> list[Score]:
    """Precision of one embedding method, a mean for each label."""
    vectors = data.vectors[method]
    values = []
    for query in queries:
        vector = data.texts[method][query.label] if query.row is None else vectors[query.row]
        right = data.labels[query.gallery] == query.label
        values.append((query.label, precision(vectors[query.gallery] @ vector, right)))
    return label_scores(values)


def label_scores(values: Iterable[tuple[str, float]]) -> list[Score]:
    """One score per label, the mean of its queries: 100 people count no more than 3 forks.

    The label stands in the place of the photo, so that intervals are about other labels.
    """
    by_label: dict[str, list[float]] = defaultdict(list)
    for label, value in values:
        by_label[label].append(value)
    return [
        Score(photo=label, object=label, value=float(np.mean(own)))
        for label, own in sorted(by_label.items())
    ]
