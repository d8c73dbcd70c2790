"""An index of real rows and of synthetic ones that are clustered like them, in any number.

Real vectors are clustered by their masked-CLIP part. A synthetic row draws a cluster by its size,
and a point of the Gaussian with the mean and covariance of its members: their mean plus a random
combination of their deviations, the same one in both spaces, at unit length. Independent random
vectors would all be about equally far from each other: nearest neighbours would mean nothing and
every index would look bad.

`likeness` compares real and synthetic vectors: the angle to the nearest neighbours, and the
intrinsic dimension by the ratio of the two nearest (Facco et al., arXiv 1803.06992).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from textsam.errors import require
from textsam.search.index import MaskIndex
from textsam.search.records import (
    MaskRow,
    MaskVectors,
    SpaceName,
    VectorSpace,
    read_rows,
    read_vectors,
)
from textsam.values.rle import RLE, encode_mask

from ...evaluation.data_sets import BadInputError

FloatArray = npt.NDArray[np.float32]

_MEMBERS = 20  # of a cluster, about: by `likeness`, best of 20, 40 and 80
_ROUNDS = 10
_SIZE = (240, 320)
_MASKS_PER_PHOTO = 8
_BATCH = 20_000  # synthetic rows that are made at a time


@dataclass(frozen=True, kw_only=True)
class Clusters:
    """Real vectors, sorted into clusters."""

    members: Sequence[npt.NDArray[np.int64]]  # rows of each cluster, at least two
    vectors: Mapping[SpaceName, FloatArray]  # (N, D) unit vectors by space


def find_clusters(vectors: Mapping[SpaceName, FloatArray], *, seed: int) -> Clusters:
    """Sort real vectors into clusters of about twenty by k-means on the unit sphere."""
    rng = np.random.default_rng(seed)
    clip = vectors["clip"]
    count = max(1, len(clip) // _MEMBERS)
    centres = clip[rng.permutation(len(clip))[:count]]
    for _ in range(_ROUNDS):
        own = (clip @ centres.T).argmax(1)
        sums = np.zeros_like(centres)
        np.add.at(sums, own, clip)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = np.where(lengths > 0, sums / np.maximum(lengths, 1e-9), centres)
    groups = [np.flatnonzero(own == index) for index in range(count)]
    return Clusters(members=[group for group in groups if len(group) > 1], vectors=vectors)


def synthetic_rows(
    clusters: Clusters, spaces: Mapping[SpaceName, VectorSpace], count: int, *, seed: int
) -> tuple[list[MaskRow], MaskVectors]:
    """Draw rows; another seed draws others, with other ids."""
    rng = np.random.default_rng(seed)
    sizes = np.array([len(group) for group in clusters.members], dtype=np.float64)
    drawn = np.sort(rng.choice(len(sizes), size=count, p=sizes / sizes.sum()))
    made = {
        name: np.empty((count, clusters.vectors[name].shape[1]), dtype=np.float32)
        for name in spaces
    }
    for index, group in enumerate(clusters.members):
        rows = np.flatnonzero(drawn == index)
        weights = rng.standard_normal((len(rows), len(group)), dtype=np.float32)
        for name, array in made.items():
            real = clusters.vectors[name][group]
            mean = real.mean(axis=0)
            array[rows] = mean + weights @ (real - mean) / np.sqrt(len(group) - 1)
    for array in made.values():
        array /= np.linalg.norm(array, axis=1, keepdims=True)
    # Neighbours in a file are not neighbours in space, as in a collection of photos.
    order = rng.permutation(count)
    masks = _masks(rng)
    rows_made = [
        MaskRow(
            dataset=f"synthetic/{drawn[place] % 4}",
            image=f"{seed:06d}/{number // _MASKS_PER_PHOTO:06d}",
            rle=masks[number % len(masks)],
            label=f"thing {drawn[place]}",
        )
        for number, place in enumerate(order)
    ]
    vectors = MaskVectors(spaces=spaces, vectors={n: a[order] for n, a in made.items()})
    return rows_made, vectors


def _masks(rng: np.random.Generator) -> list[RLE]:
    """Boxes of many sizes; their number is a multiple of the masks of a photo."""
    masks = []
    for _ in range(_MASKS_PER_PHOTO * 50):
        mask = np.zeros(_SIZE, dtype=np.bool_)
        top, left = (int(rng.integers(0, side // 2)) for side in _SIZE)
        height, width = (int(rng.integers(8, side // 2)) for side in _SIZE)
        mask[top : top + height, left : left + width] = True
        masks.append(encode_mask(mask))
    return masks


def likeness(vectors: FloatArray) -> dict[str, float]:
    """Neighbourhoods of (N, D) unit vectors, N above ten.

    Returns:
        `first` and `tenth`, median cosines to the nearest other vector and to the tenth nearest,
        and `dimension`, the intrinsic dimension.
    """
    cosines = -np.sort(-(vectors @ vectors.T), axis=1)[:, 1:11]
    # Distances of two rounding errors are no neighbours' ratio: copies are left out.
    first, second = (np.sqrt(np.maximum(2 - 2 * cosines[:, i], 0)) for i in (0, 1))
    real = first > 1e-3
    ratios = np.log(second[real] / first[real])
    return {
        "first": float(np.median(cosines[:, 0])),
        "tenth": float(np.median(cosines[:, 9])),
        "dimension": float(1 / ratios.mean()) if ratios.sum() > 0 else 0.0,
    }


def read_real(
    uri: str, *, queries: int, seed: int
) -> tuple[list[MaskRow], MaskVectors, dict[SpaceName, FloatArray]]:
    """Read an index of real masks: the rows and vectors that stay, and the vectors kept back."""
    rows: list[MaskRow] = []
    parts: dict[SpaceName, list[FloatArray]] = {"clip": [], "sam": []}
    with MaskIndex.open(uri) as index:
        spaces = dict(index.spaces)
        if set(spaces) != set(parts) or index.count() < 2 * queries + 20:
            raise BadInputError(
                f"{uri} has {index.count()} rows of {sorted(spaces)}; wanted an index of at least "
                f"{2 * queries + 20} real masks, in 'clip' and 'sam'"
            )
        for batch in index.rows():
            table = require("pyarrow", "search").Table.from_batches([batch])
            rows += read_rows(table)
            for name, part in parts.items():
                part.append(read_vectors(table, name).copy())
    vectors = {name: np.concatenate(part) for name, part in parts.items()}
    order = np.random.default_rng(seed).permutation(len(rows))
    back, stay = order[:queries], np.sort(order[queries:])
    kept = MaskVectors(spaces=spaces, vectors={n: array[stay] for n, array in vectors.items()})
    return [rows[i] for i in stay], kept, {name: array[back] for name, array in vectors.items()}


def build_index(
    uri: str, rows: list[MaskRow], vectors: MaskVectors, *, count: int, seed: int
) -> dict[str, Any]:
    """Fill an index with real and synthetic rows, and build its search structures.

    An index that an earlier run began is continued: rows that are there stay.

    Returns:
        `rows`, `added`, `add_seconds`, `build_seconds`, `engine`; `alike`, by space the
        neighbourhoods of the real rows and of as many synthetic ones.
    """
    clusters = find_clusters(vectors.vectors, seed=seed)
    spaces = vectors.spaces
    with MaskIndex.open(uri) as index:
        start = time.perf_counter()
        added = index.add(rows, vectors)
        for first in range(len(rows), count, _BATCH):
            size = min(_BATCH, count - first)
            added += index.add(*synthetic_rows(clusters, spaces, size, seed=seed + first))
        middle = time.perf_counter()
        index.compact()
        built = {
            "rows": index.count(),
            "added": added,
            "add_seconds": middle - start,
            "build_seconds": time.perf_counter() - middle,
            "engine": dict(index.engine.describe()),
        }
    _, synthetic = synthetic_rows(clusters, spaces, len(clusters.vectors["clip"]), seed=seed + 1)
    alike = {
        name: {
            "real": likeness(clusters.vectors[name]),
            "synthetic": likeness(synthetic.vectors[name]),
        }
        for name in spaces
    }
    return built | {"alike": alike}
