"""Outlines of masks as polygons, exact to the pixel, and polygons back to masks.

A ring is a (N, 2) float32 array of corners (x, y), original pixels; the last corner is connected to
the first. It runs along the edges of pixels, so that pixel (0, 0) alone is the square (0, 0),
(1, 0), (1, 1), (0, 1): rings, boxes and areas agree, and the filled rings are the mask. Outer rings
run clockwise on the screen, holes counter-clockwise, so that their signed areas add up to the area
of the mask.

Libraries that draw (OpenCV, PIL) number pixels instead and paint the border as well: there the same
pixel is the point (0, 0), and a square of 4 x 4 pixels has its corners at 0 and 3. For these,
`mask_to_polygons(..., centres=True)` runs through the centres of the outermost pixels, in their
numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, pairwise, repeat

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from textsam.results.mask_table import MaskTable
from textsam.values.rle import decode_rle

__all__ = [
    "fill_polygons",
    "mask_to_polygons",
    "mask_to_rings",
    "ring_area",
    "simplify_ring",
    "yolo_text",
]

Ring = NDArray[np.float32]
Points = NDArray[np.float64]

# Steps along the edges of pixels: right, down, left, up. The inside lies to the right of each, as y
# points down, so the next one of the four points inwards.
_STEPS = np.asarray([(1, 0), (0, 1), (-1, 0), (0, -1)])
# Where a step starts, seen from the pixel at whose top or left edge `np.diff` finds it.
_STARTS = np.asarray([(0, 0), (0, 0), (1, 0), (0, 1)])

# The middles of stairs lie up to .35 pixels from their corners, which is part of the tolerance.
_SHARE = 0.8

# Readers round (supervision) or cut (Ultralytics) to whole pixels; both get there from a quarter.
_QUARTER = 0.25


def mask_to_rings(mask: NDArray[np.bool_], *, tolerance: float = 0.0) -> list[Ring]:
    """Trace the border of a mask.

    Args:
        mask: (H, W) bool. Pixels that touch only at a corner belong to different rings
            (4-connectivity).
        tolerance: Maximum distance in pixels of a corner from the line that replaces it; 0 is
            exact, 0.5 makes lines of the stairs along slanted borders. Rings that shrink to a line
            are left out.

    Returns:
        Rings, the largest first; holes have a negative `ring_area`. Empty for an empty mask.
    """
    outline = _trace(mask)
    rings = outline.rings(soft=tolerance > 0)[0]
    simple = [ring[_kept(ring, (), _SHARE * tolerance)].astype(np.float32) for ring in rings]
    return sorted(
        (ring for ring in simple if len(ring) >= 3), key=lambda ring: -abs(ring_area(ring))
    )


def mask_to_polygons(
    mask: NDArray[np.bool_],
    *,
    tolerance: float = 0.0,
    join_parts: bool = False,
    centres: bool = False,
) -> list[Ring]:
    """Trace a mask as polygons without holes, for formats that have no holes.

    Each hole is joined to its surroundings by a bridge of no width through the mask, so that the
    even-odd and the non-zero rule both fill the mask with its holes, and areas stay right.

    Args:
        mask: (H, W) bool.
        tolerance: As in `mask_to_rings`.
        join_parts: Join the parts by bridges as well, for formats with one polygon per object. A
            reader that paints borders paints these bridges, one pixel wide, so short ones are
            chosen: along rows and columns, and between pixels that touch at a corner.
        centres: Run through the centres of the outermost pixels, in pixel numbers, for readers
            that paint the border.

    Returns:
        Polygons, the largest first; those from `centres` may be lines or points.
    """
    outline = _trace(mask)
    links = _links(outline, join_parts=join_parts)
    steps = sorted({step for link in links for step in link})
    rings, places = outline.rings(steps, centres=centres, soft=tolerance > 0)
    where = {
        step: (int(outline.owner[step]), int(p)) for step, p in zip(steps, places, strict=True)
    }
    fixed: dict[int, list[int]] = {}
    for number, place in where.values():
        fixed.setdefault(number, []).append(place)
    if tolerance > 0:
        keep = [_kept(ring, fixed.get(n, ()), _SHARE * tolerance) for n, ring in enumerate(rings)]
        moved = [np.cumsum(kept) - 1 for kept in keep]
        rings = [ring[kept] for ring, kept in zip(rings, keep, strict=True)]
        where = {step: (n, int(moved[n][place])) for step, (n, place) in where.items()}
    bridges: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for here, there in links:
        bridges.setdefault(where[here], []).append(where[there])
        bridges.setdefault(where[there], []).append(where[here])
    polygons = list(_tours(rings, bridges))
    if not centres:
        polygons = [polygon for polygon in polygons if len(polygon) >= 3]
    return sorted(polygons, key=lambda polygon: -abs(ring_area(polygon)))


def fill_polygons(
    polygons: Sequence[NDArray[np.floating]], size: tuple[int, int], *, centres: bool = False
) -> NDArray[np.bool_]:
    """Fill polygons, each by the even-odd rule, and return the union (H, W) bool.

    Args:
        polygons: (N, 2) corners x, y each.
        size: (H, W).
        centres: The corners are pixel numbers and the border is painted, as `cv2.fillPoly` does;
            otherwise a pixel is inside if its centre is, with (0.5, 0.5) the first one's.
    """
    height, width = size
    mask = np.zeros(size, dtype=np.bool_)
    offset = 0.0 if centres else 0.5
    for polygon in polygons:
        ring = np.asarray(polygon, dtype=np.float64).reshape(-1, 2)
        if centres:
            ring = np.rint(ring)
            border = Image.new("1", (width, height))
            ImageDraw.Draw(border).line([tuple(p) for p in [*ring.tolist(), *ring[:1].tolist()]], 1)
            mask |= np.asarray(border)
        start, end = ring - offset, np.roll(ring, -1, axis=0) - offset
        low = np.ceil(np.minimum(start[:, 1], end[:, 1])).clip(0, height).astype(np.int64)
        high = np.ceil(np.maximum(start[:, 1], end[:, 1])).clip(0, height).astype(np.int64)
        edge = np.repeat(np.arange(len(ring)), high - low)
        if not len(edge):
            continue
        rows = np.arange(len(edge)) - np.repeat(np.cumsum(high - low) - high, high - low)
        along = (rows - start[edge, 1]) / (end[edge, 1] - start[edge, 1])
        cross = start[edge, 0] + along * (end[edge, 0] - start[edge, 0])
        columns = np.ceil(cross).clip(0, width).astype(np.int64)
        top, bottom = int(rows.min()), int(rows.max()) + 1
        places = (rows - top) * (width + 1) + columns
        flips = np.bincount(places, minlength=(bottom - top) * (width + 1)) % 2 == 1
        inside = np.logical_xor.accumulate(flips.reshape(bottom - top, width + 1), axis=1)
        mask[top:bottom] |= inside[:, :width]
    return mask


def ring_area(ring: NDArray[np.floating]) -> float:
    """Signed area, square pixels: positive for an outer ring, negative for a hole (shoelace)."""
    x, y = ring[:, 0].astype(np.float64), ring[:, 1].astype(np.float64)
    closing = x[-1] * y[0] - x[0] * y[-1]
    return float((x[:-1] @ y[1:] - x[1:] @ y[:-1] + closing) / 2)


def simplify_ring(ring: Ring, tolerance: float) -> Ring:
    """Drop corners that lie within `tolerance` pixels of the line that replaces them.

    Ramer 1972, Douglas and Peucker 1973, on the two chains between a corner and the one farthest
    from it.
    """
    return ring[_kept(ring.astype(np.float64), (), tolerance)]


def yolo_text(
    table: MaskTable, *, names: Sequence[str] | None = None, tolerance: float = 0.5
) -> str:
    """Write masks as YOLO's segmentation labels: `class x1 y1 x2 y2 ...`, one line per mask.

    The format of Ultralytics: class numbers from 0, coordinates divided by width and height, one
    polygon per object: holes and parts are joined by bridges. Trainers fill these polygons with
    their border, so the corners are pixel numbers (and a quarter, which rounding and cutting
    both drop): a square of 4 pixels comes back as one of 4 pixels. Empty masks are left out.

    Args:
        table: The masks.
        names: Class names in order; `table.names()` by default. If no mask has a label, all are
            class 0.
        tolerance: Maximum distance in pixels of a corner from the line that replaces it.

    Raises:
        ValueError: A label is not in `names`, or only some masks have labels.
    """
    classes = table.names() if names is None else list(names)
    unlabelled = all(label is None for label in table.labels)
    height, width = table.size
    lines = []
    for label, rle in zip(table.labels, table.rles, strict=True):
        if not unlabelled and label not in classes:
            raise ValueError(f"got label {label!r}; wanted one of the class names {classes}")
        polygons = mask_to_polygons(
            decode_rle(rle), tolerance=tolerance, join_parts=True, centres=True
        )
        for polygon in polygons:
            number = 0 if label is None else classes.index(label)
            # Readers want three corners, also of a single pixel.
            corners = np.resize(polygon, (max(len(polygon), 3), 2)) + _QUARTER
            places = (corners / np.asarray([width, height])).ravel()
            lines.append(" ".join([str(number), *(f"{place:.6f}" for place in places)]))
    return "".join(f"{line}\n" for line in lines)


@dataclass(frozen=True)
class _Outline:
    """Unit steps along the border of a mask, ring after ring, in order.

    Attributes:
        start: (N, 2) where each step starts, in corners of pixels.
        turn: (N,) which of `_STEPS` it is.
        owner: (N,) number of its ring.
        ends: (R + 1,) the steps of ring r are ends[r] to ends[r + 1].
    """

    start: NDArray[np.int64]
    turn: NDArray[np.int64]
    owner: NDArray[np.int64]
    ends: NDArray[np.int64]

    @property
    def count(self) -> int:
        """Number of rings."""
        return len(self.ends) - 1

    def pixels(self) -> NDArray[np.int64]:
        """(N, 2) the pixel inside of each step."""
        found: NDArray[np.int64] = (
            self.start + (_STEPS[self.turn] + _STEPS[(self.turn + 1) % 4] - 1) // 2
        )
        return found

    def rings(
        self, bridges: Sequence[int] = (), *, centres: bool = False, soft: bool = False
    ) -> tuple[list[Points], NDArray[np.int64]]:
        """The corners of each ring and, on some steps, where bridges begin.

        If soft, the middles of all steps in place of the corners of stairs, to be simplified.

        Returns:
            R rings (M, 2) and, for each bridge, its place in its ring.
        """
        first = np.zeros(len(self.turn), dtype=np.int64)
        first[self.ends[:-1]] = np.diff(self.ends)  # the step before the first one is the last one
        before = np.arange(len(self.turn)) - 1 + first
        corners = np.flatnonzero(self.turn != self.turn[before])
        if soft:
            corners = corners[:0] if centres else corners[self._between_long_sides(corners)]
        steps = np.arange(len(self.turn)) if soft else np.asarray(bridges, dtype=np.int64)
        points = self.start[corners].astype(np.float64)
        middles = self.start[steps] + _STEPS[self.turn[steps]] / 2
        if centres:
            inwards = _STEPS[(self.turn + 1) % 4]
            points += (inwards[corners] + inwards[before[corners]]) / 2 - 0.5
            middles += inwards[steps] / 2 - 0.5
        order = np.argsort(np.concatenate([corners, steps + 0.5]), kind="stable")
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
        owner = self.owner[np.concatenate([corners, steps])[order]]
        cuts = np.searchsorted(owner, np.arange(self.count + 1))
        everything = np.concatenate([points, middles])[order]
        rings = [everything[a:b] for a, b in pairwise(cuts.tolist())]
        chosen = np.searchsorted(steps, np.asarray(bridges, dtype=np.int64))
        return rings, place[len(corners) :][chosen] - cuts[self.owner[steps[chosen]]]

    def _between_long_sides(self, corners: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which corners (M,) are no stairs: the sides before and after have three pixels."""
        cuts = np.searchsorted(corners, self.ends)
        length = np.diff(corners, append=0)
        last = cuts[1:] - 1  # of each ring: its side goes on to the ring's first corner
        length[last] = np.diff(self.ends) + corners[cuts[:-1]] - corners[last]
        earlier = np.arange(len(corners)) - 1
        earlier[cuts[:-1]] = last
        return np.minimum(length, length[earlier]) >= 3


def _trace(mask: NDArray[np.bool_]) -> _Outline:
    """Find the steps along the border of a mask and chain them into closed rings."""
    padded = np.pad(np.asarray(mask, dtype=np.int8), 1)
    down = np.diff(padded, axis=0)[:, 1:-1]  # (H + 1, W): 1 where inside begins below the edge
    right = np.diff(padded, axis=1)[1:-1]  # (H, W + 1): 1 where inside begins right of the edge
    starts, turns = [], []
    for turn, edges in enumerate((down == 1, right == -1, down == -1, right == 1)):
        ys, xs = np.nonzero(edges)
        starts.append(np.stack([xs, ys], axis=1) + _STARTS[turn])
        turns.append(np.full(len(xs), turn))
    start, turn_of = np.concatenate(starts), np.concatenate(turns)
    stride = padded.shape[1]
    corner = start[:, 1] * stride + start[:, 0]
    order = np.lexsort((turn_of, corner))
    start, turn_of, corner = start[order], turn_of[order], corner[order]
    end = start + _STEPS[turn_of]
    place = end[:, 1] * stride + end[:, 0]
    following = np.searchsorted(corner, place)
    # There are two ways on where pixels touch at a corner: a right turn stays at its pixel.
    other = np.minimum(following + 1, len(corner) - 1)
    following = np.where(
        (corner[other] == place) & (turn_of[other] == (turn_of + 1) % 4), other, following
    )
    chain, lengths = _follow(following.tolist())
    ends = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    owner = np.repeat(np.arange(len(lengths)), lengths)
    return _Outline(start[chain], turn_of[chain], owner, ends)


def _follow(following: list[int]) -> tuple[NDArray[np.int64], list[int]]:
    """The cycles of a permutation: its members, cycle after cycle, and the length of each."""
    seen = bytearray(len(following))
    chain: list[int] = []
    lengths = []
    first = seen.find(0)
    while first >= 0:
        before, step = len(chain), first
        while not seen[step]:
            seen[step] = 1
            chain.append(step)
            step = following[step]
        lengths.append(len(chain) - before)
        first = seen.find(0, first)
    return np.asarray(chain, dtype=np.int64), lengths


def _links(outline: _Outline, *, join_parts: bool) -> list[tuple[int, int]]:
    """Pairs of steps to join by bridges, so that the rings become trees; one tree for all parts.

    Neighbours along a row or column are tried: through the mask first, which joins holes to their
    surroundings, then across gaps, the shortest first (Kruskal 1956).
    """
    if outline.count < 2:
        return []
    candidates = []  # (N, 4): is it a gap, its length, the two steps
    for axis in (0, 1):
        # Steps down and up are the borders of rows, steps right and left those of columns.
        steps = np.flatnonzero(outline.turn % 2 == 1 - axis)
        pixels = outline.pixels()[steps]
        border = outline.start[steps, axis]
        order = np.lexsort((border, pixels[:, 1 - axis]))
        steps, border, row = steps[order], border[order], pixels[order, 1 - axis]
        pair = np.flatnonzero(row[1:] == row[:-1])
        # A step up or to the right has the mask after it.
        gap = ~np.isin(outline.turn[steps[pair]], (0, 3))
        length = border[pair + 1] - border[pair]
        candidates.append(np.stack([gap, length, steps[pair], steps[pair + 1]], axis=1))
    corner = outline.start[:, 1] * (outline.start.max() + 1) + outline.start[:, 0]
    order = np.argsort(corner, kind="stable")
    touch = np.flatnonzero(corner[order][1:] == corner[order][:-1])
    once = np.ones(len(touch), dtype=np.int64)
    candidates.append(np.stack([once, 0 * once, order[touch], order[touch + 1]], axis=1))
    table = np.concatenate(candidates)
    if not join_parts:
        table = table[table[:, 0] == 0]
    pairs = np.sort(outline.owner[table[:, 2:]], axis=1)
    order = np.lexsort((table[:, 1], table[:, 0]))
    order = order[pairs[order, 0] != pairs[order, 1]]
    # The shortest of each pair of rings.
    _, first = np.unique(pairs[order] @ [outline.count, 1], return_index=True)
    groups = list(range(outline.count))
    links = []
    for here, there in table[order[np.sort(first)], 2:].tolist():
        if _unite(groups, int(outline.owner[here]), int(outline.owner[there])):
            links.append((here, there))
    return links + (_far_links(outline, groups) if join_parts else [])


def _far_links(outline: _Outline, groups: list[int]) -> list[tuple[int, int]]:
    """Links to the groups of rings that share no row or column with the first one's."""
    roots = np.asarray([_root(groups, number) for number in range(outline.count)])
    group_of = roots[outline.owner]
    middles = outline.start + _STEPS[outline.turn] / 2
    joined = group_of == group_of[0]
    links = []
    for group in list(dict.fromkeys(roots.tolist()))[1:]:
        here, there = np.flatnonzero(joined), np.flatnonzero(group_of == group)
        # To and fro between the two, which ends at a pair that is close, if not at the closest.
        step = there[0]
        for _ in range(3):
            near = here[((middles[here] - middles[step]) ** 2).sum(axis=1).argmin()]
            step = there[((middles[there] - middles[near]) ** 2).sum(axis=1).argmin()]
        links.append((int(near), int(step)))
        joined[there] = True
    return links


def _root(groups: list[int], number: int) -> int:
    while groups[number] != number:
        groups[number] = groups[groups[number]]  # halves the way for the next one
        number = groups[number]
    return number


def _unite(groups: list[int], a: int, b: int) -> bool:
    """Join two groups; False if they were one already."""
    a, b = _root(groups, a), _root(groups, b)
    groups[max(a, b)] = min(a, b)
    return a != b


def _tours(
    rings: Sequence[Points], bridges: dict[tuple[int, int], list[tuple[int, int]]]
) -> Iterator[Ring]:
    """Walk around each tree of rings, over every bridge there and back."""
    seen = bytearray(len(rings))
    for root in range(len(rings)):
        if seen[root]:
            continue
        seen[root] = 1
        tour: list[tuple[int, int]] = []
        ways: list[Iterator[tuple[int, int]]] = [zip(repeat(root, len(rings[root])), count())]
        while ways:
            here = next(ways[-1], None)
            if here is None:
                ways.pop()
                continue
            tour.append(here)
            for number, entry in bridges.get(here, ()):
                if not seen[number]:
                    seen[number] = 1
                    ways.append(iter([here]))  # the way back
                    ways.append(_around(number, entry, len(rings[number])))
        points = [rings[number][place] for number, place in tour]
        yield np.asarray(points, dtype=np.float32)


def _around(number: int, entry: int, corners: int) -> Iterator[tuple[int, int]]:
    """Once around a ring, from a corner to itself."""
    return ((number, (entry + place) % corners) for place in range(corners + 1))


def _kept(points: Points, fixed: Sequence[int], tolerance: float) -> NDArray[np.bool_]:
    """Which corners (M,) of a ring stay: those that are fixed, and Douglas and Peucker's."""
    total = len(points)
    if tolerance <= 0 or total < 4:
        return np.ones(total, dtype=np.bool_)
    first = fixed[0] if fixed else 0
    far = int(np.argmax(((points - points[first]) ** 2).sum(axis=1)))
    anchors = sorted({first, far, *fixed})
    closed = np.concatenate([points, points])
    keep = np.zeros(2 * total, dtype=np.bool_)
    keep[anchors] = True
    chains = list(zip(anchors, [*anchors[1:], anchors[0] + total], strict=True))
    while chains:
        start, end = chains.pop()
        if end - start < 2:
            continue
        offsets = _distance_to_segment(closed[start + 1 : end], closed[start], closed[end])
        worst = int(np.argmax(offsets))
        if offsets[worst] > tolerance:
            middle = start + 1 + worst
            keep[middle] = True
            chains += [(start, middle), (middle, end)]
    kept: NDArray[np.bool_] = keep[:total] | keep[total:]
    return kept


def _distance_to_segment(points: Points, start: Points, end: Points) -> Points:
    """Distance (N,) of points (N, 2) from the segment between two corners."""
    along = end - start
    length = float(along @ along)
    place = ((points - start) @ along / length).clip(0, 1) if length else np.zeros(len(points))
    offsets: Points = np.linalg.norm(points - start - place[:, None] * along, axis=1)
    return offsets
