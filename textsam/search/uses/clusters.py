"""Clusters of masks, and names for them: spherical k-means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from textsam.errors import PromptError
from textsam.search.uses.neighbours import unit_rows

FloatArray = npt.NDArray[np.float32]

_MAX_ITERATIONS = 100
_RESTARTS = 4  # runs from different first centres; the tightest is kept


@dataclass(frozen=True, kw_only=True, eq=False)
class Cluster:
    """Masks that are close to one centre.

    Attributes:
        rows: Row numbers, the most typical first: show the first few, and name them all.
        centre: (D,) float32 of length 1.
        tightness: Mean cosine of its masks with the centre.
        names: Phrases that suit the cluster, best first, with their cosines with the centre; empty
            unless phrases were given.
    """

    rows: tuple[int, ...]
    centre: FloatArray
    tightness: float
    names: tuple[tuple[str, float], ...] = ()


def cluster_masks(
    vectors: npt.ArrayLike,
    count: int,
    *,
    phrases: Mapping[str, FloatArray] | None = None,
    suggestions: int = 3,
    seed: int = 0,
) -> list[Cluster]:
    """Cluster masks by spherical k-means (Dhillon and Modha 2001), the largest cluster first.

    Args:
        vectors: (N, D) of one space.
        count: Number of clusters, at most N. Rather too many than too few: two clusters of the
            same things are merged by giving them the same name.
        phrases: Names to choose from and their vectors, `embedder.text(name)`; only for vectors of
            the space "clip". They are ranked by how much closer they are to this cluster than to
            the others, since some phrases are close to everything.
        suggestions: Maximum number of names per cluster.
        seed: Of the choice of the first centres.

    Raises:
        PromptError: A count outside 1 to N, or phrases of another width.
    """
    rows = unit_rows(vectors)
    if not 1 <= count <= len(rows):
        raise PromptError(f"count={count} for {len(rows)} vectors; wanted 1 to {len(rows)}")
    rng = np.random.default_rng(seed)
    runs = [_k_means(rows, _first_centres(rows, count, rng)) for _ in range(_RESTARTS)]
    centres, assignment = max(runs, key=lambda run: float((rows * run[0][run[1]]).sum()))
    names = _suggest_names(centres, phrases, suggestions)
    clusters = []
    for number, centre in enumerate(centres):
        members = np.flatnonzero(assignment == number)
        if not len(members):
            continue
        cosines = rows[members] @ centre
        order = members[np.argsort(-cosines, kind="stable")]
        clusters.append(
            Cluster(
                rows=tuple(int(row) for row in order),
                centre=centre,
                tightness=float(cosines.mean()),
                names=names[number],
            )
        )
    return sorted(clusters, key=lambda cluster: (-len(cluster.rows), -cluster.tightness))


def _first_centres(rows: FloatArray, count: int, rng: np.random.Generator) -> FloatArray:
    """k-means++: rows drawn in proportion to their distance from the centres before them."""
    chosen = [int(rng.integers(len(rows)))]
    distance = np.full(len(rows), np.inf)
    while len(chosen) < count:
        distance = np.minimum(distance, np.clip(1 - rows @ rows[chosen[-1]], 0, None))
        distance[chosen] = 0
        total = distance.sum()
        if total > 0:
            chosen.append(int(rng.choice(len(rows), p=distance / total)))
        else:  # only copies of the centres are left
            chosen.append(int(rng.choice(np.setdiff1d(np.arange(len(rows)), chosen))))
    return rows[chosen].copy()


def _k_means(rows: FloatArray, centres: FloatArray) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """Unit centres (k, D) and the cluster of each row, once no row changes its cluster."""
    assignment = np.full(len(rows), -1)
    for _ in range(_MAX_ITERATIONS):
        updated = (rows @ centres.T).argmax(1)
        if (updated == assignment).all():
            break
        assignment = updated
        sums = np.zeros_like(centres)
        np.add.at(sums, assignment, rows)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        # A cluster without rows keeps its centre.
        centres = np.where(lengths > 0, sums / np.maximum(lengths, 1e-12), centres)
    return centres.astype(np.float32), assignment


def _suggest_names(
    centres: FloatArray, phrases: Mapping[str, FloatArray] | None, count: int
) -> list[tuple[tuple[str, float], ...]]:
    """For each centre the best phrases and their cosines."""
    if not phrases:
        return [()] * len(centres)
    names = list(phrases)
    texts = unit_rows(np.stack([phrases[name] for name in names]))
    if texts.shape[1] != centres.shape[1]:
        raise PromptError(
            f"phrases have {texts.shape[1]} numbers, masks {centres.shape[1]}; wanted both in the "
            'space "clip"'
        )
    cosines = centres @ texts.T
    # A phrase that is close to every centre says nothing about one of them.
    contrast = cosines - cosines.mean(0, keepdims=True)
    order = np.argsort(-contrast, axis=1, kind="stable")[:, :count]
    return [
        tuple((names[column], float(cosines[row, column])) for column in columns)
        for row, columns in enumerate(order)
    ]
