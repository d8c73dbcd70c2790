"""Masks sorted into heaps that look alike, so that a heap is named instead of a thousand masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from textsam.errors import PromptError
from textsam.search.uses.blocks import checked_vectors

__all__ = ["Cluster", "cluster_masks"]

_ROUNDS = 100
_STARTS = 4  # runs from other centres; the tightest is kept


@dataclass(frozen=True, kw_only=True, eq=False)
class Cluster:
    """A heap of masks.

    Attributes:
        rows: Row numbers, the most typical first: show the first few, name them all.
        centre: (D,) float32 of length 1.
        tightness: Mean cosine of its masks with the centre.
        names: The phrases that fit best and their cosines with the centre, best first, where there
            are phrases to choose from.
    """

    rows: tuple[int, ...]
    centre: npt.NDArray[np.float32]
    tightness: float
    names: tuple[tuple[str, float], ...] = ()


def cluster_masks(
    vectors: npt.ArrayLike,
    count: int,
    *,
    phrases: Mapping[str, npt.NDArray[np.float32]] | None = None,
    suggestions: int = 3,
    seed: int = 0,
) -> list[Cluster]:
    """Spherical k-means: `count` heaps, the largest first (Dhillon and Modha 2001).

    Args:
        vectors: (N, D) of one space.
        count: Heaps, at most N. Too many is better than too few: two heaps of one name are merged
            by giving them the same name.
        phrases: Names to choose from with their vectors, `embedder.text(name)`; for vectors of the
            space "clip". What counts is how much nearer a phrase is to a heap than to the others,
            since some phrases are near to everything.
        suggestions: Names of a heap, at most.
        seed: Decides the first centres.

    Raises:
        PromptError: A count that cannot be, or phrases of another width.
    """
    rows = checked_vectors(vectors)
    if not 1 <= count <= len(rows):
        raise PromptError(f"count={count} for {len(rows)} vectors; wanted 1 to {len(rows)}")
    rng = np.random.default_rng(seed)
    runs = [_k_means(rows, _first_centres(rows, count, rng)) for _ in range(_STARTS)]
    centres, heap = max(runs, key=lambda run: _fit(rows, *run))
    names = _names(centres, phrases, suggestions)
    found = []
    for number, centre in enumerate(centres):
        inside = np.flatnonzero(heap == number)
        if not len(inside):
            continue
        cosines = rows[inside] @ centre
        order = inside[np.argsort(-cosines, kind="stable")]
        found.append(
            Cluster(
                rows=tuple(int(row) for row in order),
                centre=centre,
                tightness=float(cosines.mean()),
                names=names[number],
            )
        )
    return sorted(found, key=lambda cluster: (-len(cluster.rows), -cluster.tightness))


def _first_centres(
    rows: npt.NDArray[np.float32], count: int, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Spread centres: each is drawn by its distance from those before (k-means++)."""
    chosen = [int(rng.integers(len(rows)))]
    distance = np.full(len(rows), np.inf)
    while len(chosen) < count:
        distance = np.minimum(distance, np.clip(1 - rows @ rows[chosen[-1]], 0, None))
        distance[chosen] = 0
        total = distance.sum()
        if total > 0:
            chosen.append(int(rng.choice(len(rows), p=distance / total)))
        else:  # copies of the centres are all that is left
            chosen.append(int(rng.choice(np.setdiff1d(np.arange(len(rows)), chosen))))
    return rows[chosen].copy()


def _k_means(
    rows: npt.NDArray[np.float32], centres: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Centres (k, D) of length 1 and the heap of each row, when nothing moves any more."""
    heap = np.full(len(rows), -1)
    for _ in range(_ROUNDS):
        new = (rows @ centres.T).argmax(1)
        if (new == heap).all():
            break
        heap = new
        sums = np.zeros_like(centres)
        np.add.at(sums, heap, rows)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        # An empty heap keeps its centre.
        centres = np.where(lengths > 0, sums / np.maximum(lengths, 1e-12), centres)
    return centres.astype(np.float32), heap


def _fit(
    rows: npt.NDArray[np.float32], centres: npt.NDArray[np.float32], heap: npt.NDArray[np.int64]
) -> float:
    return float((rows * centres[heap]).sum())


def _names(
    centres: npt.NDArray[np.float32],
    phrases: Mapping[str, npt.NDArray[np.float32]] | None,
    most: int,
) -> list[tuple[tuple[str, float], ...]]:
    if not phrases:
        return [()] * len(centres)
    names = list(phrases)
    texts = checked_vectors(np.stack([phrases[name] for name in names]))
    if texts.shape[1] != centres.shape[1]:
        raise PromptError(
            f"phrases have {texts.shape[1]} numbers, masks {centres.shape[1]}; wanted both in the "
            'space "clip"'
        )
    cosines = centres @ texts.T
    # What a phrase says to all heaps alike says nothing about one of them.
    ranked = cosines - cosines.mean(0, keepdims=True)
    order = np.argsort(-ranked, axis=1, kind="stable")[:, :most]
    return [
        tuple((names[column], float(cosines[row, column])) for column in columns)
        for row, columns in enumerate(order)
    ]
