"""Synthetic rows clustered like real mask vectors, in any number.

Real vectors are clustered by their masked-CLIP part. A synthetic row draws a cluster by its size,
and a point of the Gaussian with the mean and covariance of its members: their mean plus a random
combination of their deviations, the same one in both spaces, at unit length. Independent random
vectors would all be about equally far from each other: nearest neighbours would mean nothing and
every index would look bad.

`likeness` compares real and synthetic vectors: the angle to the nearest neighbours, and the
intrinsic dimension by the ratio of the two nearest (Facco et al., arXiv 1803.06992).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from textsam.search.exact import nearest
from textsam.search.records import MaskRow, MaskVectors, SpaceName, VectorSpace
from textsam.values.rle import RLE, encode_mask

FloatArray = npt.NDArray[np.float32]

_MEMBERS = 20  # of a cluster, about: by `likeness`, best of 20, 40 and 80
_ROUNDS = 10
_SIZE = (240, 320)
_MASKS_PER_PHOTO = 8


@dataclass(frozen=True, kw_only=True)
class Clusters:
    """Real vectors, sorted into clusters."""

    members: Sequence[npt.NDArray[np.int64]]  # rows of each cluster, at least two
    vectors: Mapping[SpaceName, FloatArray]  # (N, D) unit vectors by space


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """What neighbourhoods look like."""

    first: float  # median cosine to the nearest other vector
    tenth: float  # median cosine to the tenth nearest
    dimension: float  # intrinsic dimension


def find_clusters(vectors: Mapping[SpaceName, FloatArray], *, seed: int) -> Clusters:
    """Sort real vectors into clusters of about twenty by k-means on the unit sphere."""
    rng = np.random.default_rng(seed)
    clip = vectors["clip"]
    count = max(1, len(clip) // _MEMBERS)
    centres = clip[rng.permutation(len(clip))[:count]]
    for _ in range(_ROUNDS):
        own = nearest(centres, clip, 1)[0][:, 0]
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


def likeness(vectors: FloatArray) -> Likeness:
    """Measure neighbourhoods of (N, D) unit vectors, N above ten."""
    cosines = nearest(vectors, vectors, 11)[1][:, 1:]
    # Distances of two rounding errors are no neighbours' ratio: copies are left out.
    first, second = (np.sqrt(np.maximum(2 - 2 * cosines[:, i], 0)) for i in (0, 1))
    real = first > 1e-3
    ratios = np.log(second[real] / first[real])
    return Likeness(
        first=float(np.median(cosines[:, 0])),
        tenth=float(np.median(cosines[:, 9])),
        dimension=float(1 / ratios.mean()) if ratios.sum() > 0 else 0.0,
    )
