"""Outlines of masks as polygons, exact to the pixel, and the one-line form that YOLO reads.

A ring is a (N, 2) float32 array of corners (x, y), original pixels; the last corner is connected to
the first. It runs along the edges of pixels, so that pixel (0, 0) alone is the square (0, 0),
(1, 0), (1, 1), (0, 1): rings, boxes and areas agree, and the filled rings are the mask. Outer rings
run clockwise on the screen, holes counter-clockwise, so that their signed areas add up to the area
of the mask.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from textsam.results.mask_table import MaskTable
from textsam.values.rle import decode_rle

__all__ = ["join_rings", "mask_to_rings", "ring_area", "simplify_ring", "yolo_text"]

# Half a pixel: stairs along a slanted border become one line, without a visible difference.
_YOLO_TOLERANCE = 0.5

Ring = NDArray[np.float32]


def mask_to_rings(mask: NDArray[np.bool_], *, tolerance: float = 0.0) -> list[Ring]:
    """Trace the border of a mask.

    Args:
        mask: (H, W) bool. Pixels that touch only at a corner belong to different rings
            (4-connectivity).
        tolerance: Maximum distance in pixels of a corner from the line that replaces it; 0 is
            exact. Rings that shrink to a line are left out.

    Returns:
        Rings, the largest first; holes have a negative `ring_area`. Empty for an empty mask.
    """
    steps = _border_steps(mask)
    rings = [_corners(ring) for ring in _follow(steps)]
    if tolerance > 0:
        rings = [simplify_ring(ring, tolerance) for ring in rings]
    rings = [ring for ring in rings if len(ring) >= 3]
    return sorted(rings, key=lambda ring: -abs(ring_area(ring)))


def ring_area(ring: Ring) -> float:
    """Signed area, square pixels: positive for an outer ring, negative for a hole (shoelace)."""
    x, y = ring[:, 0].astype(np.float64), ring[:, 1].astype(np.float64)
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def simplify_ring(ring: Ring, tolerance: float) -> Ring:
    """Drop corners that lie within `tolerance` pixels of the line that replaces them.

    Ramer 1972, Douglas and Peucker 1973, on the two chains between a corner and the one farthest
    from it.
    """
    if len(ring) < 4:
        return ring
    far = int(np.argmax(((ring - ring[0]) ** 2).sum(axis=1)))
    closed = np.concatenate([ring, ring[:1]]).astype(np.float64)
    keep = np.zeros(len(closed), dtype=np.bool_)
    keep[[0, far, len(ring)]] = True
    chains = [(0, far), (far, len(ring))]
    while chains:
        first, last = chains.pop()
        if last - first < 2:
            continue
        offsets = _distance_to_segment(closed[first + 1 : last], closed[first], closed[last])
        worst = int(np.argmax(offsets))
        if offsets[worst] > tolerance:
            middle = first + 1 + worst
            keep[middle] = True
            chains += [(first, middle), (middle, last)]
    return ring[keep[:-1]]


def join_rings(rings: Sequence[Ring]) -> Ring:
    """Join several rings to one, for formats with one polygon per object.

    Each further ring is connected by a bridge of no width between the nearest pair of corners. The
    signed area is the sum of all, and both fill rules (even-odd, non-zero) fill the same pixels as
    the separate rings. `merge_multi_segment` of Ultralytics joins the parts of one COCO object like
    that.
    """
    joined = rings[0]
    for ring in rings[1:]:
        gaps = ((joined[:, None] - ring[None]) ** 2).sum(axis=-1)
        here, there = (int(index) for index in np.unravel_index(int(gaps.argmin()), gaps.shape))
        detour = np.concatenate([ring[there:], ring[: there + 1], joined[here : here + 1]])
        joined = np.concatenate([joined[: here + 1], detour, joined[here + 1 :]])
    return joined


def yolo_text(table: MaskTable, *, names: Sequence[str] | None = None) -> str:
    """Write masks as YOLO's segmentation labels: `class x1 y1 x2 y2 ...`, one line per mask.

    The format of Ultralytics: class numbers from 0, coordinates divided by width and height, one
    polygon per object (rings are joined). Empty masks are left out. Classes are
    `table.names()` by default; if no mask has a label, all are class 0.

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
        rings = mask_to_rings(decode_rle(rle), tolerance=_YOLO_TOLERANCE)
        if rings:
            number = 0 if label is None else classes.index(label)
            places = (join_rings(rings) / np.asarray([width, height])).ravel()
            lines.append(" ".join([str(number), *(f"{place:.6f}" for place in places)]))
    return "".join(f"{line}\n" for line in lines)


def _border_steps(mask: NDArray[np.bool_]) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """Directed unit steps (dx, dy) along pixel edges, by the corner (x, y) where they start.

    The inside lies to the right of each step, as y points down.
    """
    padded = np.pad(np.asarray(mask, dtype=np.int8), 1)
    down = np.diff(padded, axis=0)[:, 1:-1]  # (H + 1, W): 1 where inside begins below the edge
    right = np.diff(padded, axis=1)[1:-1]  # (H, W + 1): 1 where inside begins right of the edge
    steps: dict[tuple[int, int], list[tuple[int, int]]] = {}
    # (which edges, step, from which end of the edge it starts)
    for edges, dx, dy, start_x, start_y in (
        (down == 1, 1, 0, 0, 0),  # top edge of a pixel: to the right
        (down == -1, -1, 0, 1, 0),  # bottom edge: to the left
        (right == -1, 0, 1, 0, 0),  # right edge: down
        (right == 1, 0, -1, 0, 1),  # left edge: up
    ):
        ys, xs = np.nonzero(edges)
        for x, y in zip((xs + start_x).tolist(), (ys + start_y).tolist(), strict=True):
            steps.setdefault((x, y), []).append((dx, dy))
    return steps


def _follow(steps: dict[tuple[int, int], list[tuple[int, int]]]) -> list[list[tuple[int, int]]]:
    """Chain steps into closed rings of corners, using up `steps`."""
    rings = []
    while steps:
        start = next(iter(steps))
        first = steps[start][0]
        crossing = len(steps[start]) == 2
        corner, step, ring = start, first, []
        while True:
            ring.append(corner)
            steps[corner].remove(step)
            if not steps[corner]:
                del steps[corner]
            corner = (corner[0] + step[0], corner[1] + step[1])
            # There are two ways on where pixels touch at a corner: a right turn stays at its pixel.
            turn = (-step[1], step[0])
            if corner == start and (turn == first or not crossing):
                break
            step = turn if turn in steps[corner] else steps[corner][0]
        rings.append(ring)
    return rings


def _corners(ring: list[tuple[int, int]]) -> Ring:
    """Keep the points at which a closed chain of unit steps turns."""
    points = np.asarray(ring, dtype=np.float32)
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    corners: Ring = points[(before != after).any(axis=1)]
    return corners


def _distance_to_segment(
    points: NDArray[np.float64], start: NDArray[np.float64], end: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Distance (N,) of points (N, 2) from the segment between two corners."""
    along = end - start
    length = float(along @ along)
    place = ((points - start) @ along / length).clip(0, 1) if length else np.zeros(len(points))
    offsets: NDArray[np.float64] = np.linalg.norm(points - start - place[:, None] * along, axis=1)
    return offsets
