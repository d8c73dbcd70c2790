"""Matching of edges with drawn boundaries, as the BSDS benchmark does it.

Source: Martin, Fowlkes and Malik, PAMI 2004, and the benchmark of BSDS500 (Arbelaez et al., PAMI
2011). At each threshold the edge map is thinned and matched one to one with each annotator's
boundary, over at most 0.0075 of the photo's diagonal. A predicted pixel is right if any annotator's
boundary takes it; a drawn pixel is found if it is taken, and every annotator's pixels count.

The original minimises the sum of distances, where an unmatched pixel costs 100 times the farthest
match. So it leaves a pair out only if keeping it moved a chain of over a hundred others: it finds a
matching with as many pairs as there can be, and among those a short one. Here scipy's
`maximum_bipartite_matching` gives as many pairs, and of several near pixels takes the nearest
first. Against the original's own code, on four photos with two edge maps each at four thresholds,
the pairs differ by at most 0.06%, and the predicted pixels that are right by at most 0.9% (more of
them by 0.2% on average, which is 0.001 of F); it takes a hundredth of the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from textsam.errors import require

__all__ = ["TOLERANCE", "Neighbours", "match_counts", "match_pixels", "thin_mask", "thresholds"]

Mask = NDArray[np.bool_]

TOLERANCE = 0.0075  # of the photo's diagonal

# The eight neighbours x1 to x8 of Lam, Lee and Suen, PAMI 1992: from the east, counter-clockwise.
_AROUND = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))


def thresholds(count: int) -> NDArray[np.float64]:
    """Levels strictly between 0 and 1, equally far apart: (count,), rising."""
    return np.arange(1, count + 1) / (count + 1)


def match_counts(
    strength: NDArray[np.float32],
    boundaries: Sequence[Mask],
    *,
    levels: NDArray[np.float64],
    tolerance: float = TOLERANCE,
) -> NDArray[np.int64]:
    """What an edge map has right at each threshold.

    Args:
        strength: (H, W), 0 to 1; a pixel is an edge at a level that it reaches.
        boundaries: (H, W) bool for each annotator.
        levels: (T,), rising.
        tolerance: Farthest match, as a share of the photo's diagonal.

    Returns:
        (T, 4) drawn pixels that were found, drawn pixels, predicted pixels that are right,
        predicted pixels; the first two are sums over annotators.
    """
    counts = np.zeros((len(levels), 4), np.int64)
    counts[:, 1] = sum(int(boundary.sum()) for boundary in boundaries)
    reach = tolerance * float(np.hypot(*strength.shape))
    places = np.argwhere(strength >= levels[0])
    near = [Neighbours.find(np.argwhere(drawn), places, reach=reach) for drawn in boundaries]
    before, edge = -1, np.zeros(strength.shape, bool)
    for row, level in enumerate(levels):
        above = strength >= level
        if above.sum() == before:  # levels rise, so these are the same pixels
            counts[row] = counts[row - 1]
            continue
        before, edge = int(above.sum()), thin_mask(above)
        chosen = edge[places[:, 0], places[:, 1]]
        right = np.zeros(len(places), bool)
        for neighbours in near:
            taken = neighbours.match(chosen)
            counts[row, 0] += len(taken)
            right[taken] = True
        counts[row, 2:] = right.sum(), chosen.sum()
    return counts


def match_pixels(drawn: Mask, edge: Mask, *, reach: float) -> int:
    """How many pixels of two (H, W) bool masks can be paired within `reach` pixels, each once."""
    places = np.argwhere(edge)
    near = Neighbours.find(np.argwhere(drawn), places, reach=reach)
    return len(near.match(np.ones(len(places), bool)))


@dataclass(frozen=True)
class Neighbours:
    """Which predicted pixels one annotator's pixels can be matched with.

    Attributes:
        drawn: (E,) drawn pixel of each pair, by rising number.
        predicted: (E,) predicted pixel of it, as its place in `order`, rising for each drawn one.
        distance: (E,) between them, pixels.
        order: (M,) predicted pixels from the one nearest to the drawing to the farthest.
    """

    drawn: NDArray[np.int64]
    predicted: NDArray[np.int64]
    distance: NDArray[np.float64]
    order: NDArray[np.int64]

    @classmethod
    def find(
        cls, drawn: NDArray[np.int64], predicted: NDArray[np.int64], *, reach: float
    ) -> Neighbours:
        """All pairs of two lists of pixels, (N, 2) and (M, 2), that are at most `reach` apart."""
        tree = require("scipy.spatial", "eval").cKDTree
        count = len(predicted)
        if not len(drawn) or not count:
            nothing = np.zeros(0, np.int64)
            return cls(nothing, nothing, np.zeros(0), np.arange(count))
        pairs = tree(drawn).sparse_distance_matrix(tree(predicted), reach, output_type="ndarray")
        nearest = np.full(count, np.inf)
        np.minimum.at(nearest, pairs["j"], pairs["v"])
        order, place = np.argsort(nearest, kind="stable"), np.empty(count, np.int64)
        place[order] = np.arange(count)
        rows, columns = pairs["i"], place[pairs["j"]]
        sequence = np.lexsort((columns, rows))
        return cls(rows[sequence], columns[sequence], pairs["v"][sequence], order)

    def match(self, chosen: Mask) -> NDArray[np.int64]:
        """The predicted pixels that are taken, if only those with `chosen` (M,) are there.

        As many as there can be. Drawn pixels choose by turns, the one with the nearest neighbour
        first, and take the pixel that is nearest to the whole drawing; then what is left over makes
        the others move.
        """
        csgraph = require("scipy.sparse.csgraph", "eval")
        sparse = require("scipy.sparse", "eval")
        kept = chosen[self.order][self.predicted]
        rows, columns = self.drawn[kept], self.predicted[kept]
        if not len(rows):
            return rows
        # Nothing but pixels with a neighbour, in their order.
        there, columns = np.unique(columns, return_inverse=True)
        starts = np.flatnonzero(np.diff(rows, prepend=-1))
        graph = sparse.csr_matrix(
            (np.ones(len(rows), np.int8), columns, np.append(starts, len(rows))),
            shape=(len(starts), len(there)),
        )
        nearest = np.minimum.reduceat(self.distance[kept], starts)
        graph = graph[np.argsort(nearest, kind="stable")]
        taken = csgraph.maximum_bipartite_matching(graph, perm_type="column")
        found: NDArray[np.int64] = self.order[there[taken[taken >= 0]]]
        return found


def thin_mask(mask: Mask) -> Mask:
    """Thin lines of (H, W) bool to one pixel; what is connected stays connected.

    Guo and Hall, CACM 1989, in the form that Lam, Lee and Suen (PAMI 1992, page 879) give: what
    MATLAB's `bwmorph(..., "thin", inf)` does and the benchmark calls.
    """
    width = mask.shape[1] + 2
    inside = np.pad(mask, 1).ravel().astype(np.uint8)
    steps = [row * width + column for row, column in _AROUND]
    places = np.flatnonzero(inside)
    while True:
        before = len(places)
        for table in _REMOVABLE:
            code = np.zeros(len(places), np.uint8)
            for bit, step in enumerate(steps):
                code |= inside[places + step] << bit
            gone = table[code]
            inside[places[gone]] = 0
            places = places[~gone]
        if len(places) == before:
            thinned: Mask = inside.reshape(-1, width)[1:-1, 1:-1] > 0
            return thinned


def _removable(second: bool) -> NDArray[np.bool_]:
    """Whether a pixel goes in a half step, by the bits of its neighbours: (256,)."""
    codes = np.arange(256)
    x = [(codes >> bit & 1).astype(bool) for bit in range(8)]  # x[0] is x1

    def at(number: int) -> NDArray[np.bool_]:
        return x[(number - 1) % 8]

    # G1: one way out; G2: neither an end nor inside; G3: on the side of this half step.
    crossings = sum((~at(2 * i - 1) & (at(2 * i) | at(2 * i + 1))).astype(int) for i in range(1, 5))
    n1 = sum((at(2 * k - 1) | at(2 * k)).astype(int) for k in range(1, 5))
    n2 = sum((at(2 * k) | at(2 * k + 1)).astype(int) for k in range(1, 5))
    fewest = np.minimum(n1, n2)
    first_side = (at(2) | at(3) | ~at(8)) & at(1)
    second_side = (at(6) | at(7) | ~at(4)) & at(5)
    side = ~(second_side if second else first_side)
    table: NDArray[np.bool_] = (crossings == 1) & (fewest >= 2) & (fewest <= 3) & side
    return table


_REMOVABLE = (_removable(second=False), _removable(second=True))
