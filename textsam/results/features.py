"""Masks as GeoJSON: polygons with holes in pixel coordinates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textsam.results.mask_table import NUMBERS, MaskTable
from textsam.results.polygons import Ring, mask_to_rings, ring_area, simplify_ring
from textsam.values.rle import decode_rle, rle_area

__all__ = ["mask_to_parts", "to_features"]


def to_features(table: MaskTable, *, tolerance: float = 0.0) -> dict[str, Any]:
    """A GeoJSON `FeatureCollection`, a feature for each mask; see `Segmentation.to_geojson`."""
    features = []
    for index, (label, rle) in enumerate(zip(table.labels, table.rles, strict=True)):
        numbers = {NUMBERS[name]: float(column[index]) for name, column in table.numbers.items()}
        parts = [
            [_closed(ring) for ring in part]
            for part in mask_to_parts(decode_rle(rle), tolerance=tolerance)
        ]
        kind, places = ("Polygon", parts[0]) if len(parts) == 1 else ("MultiPolygon", parts)
        features.append(
            {
                "type": "Feature",
                "id": index,
                "properties": {
                    "label": label,
                    **{name: value for name, value in numbers.items() if not math.isnan(value)},
                    "area": rle_area(rle),
                },
                # GeoJSON's word for "nowhere": an empty mask.
                "geometry": {"type": kind, "coordinates": places} if parts else None,
            }
        )
    return {"type": "FeatureCollection", "features": features}


def mask_to_parts(mask: NDArray[np.bool_], *, tolerance: float = 0.0) -> list[list[Ring]]:
    """The parts of a mask (H, W), largest first: each an outer ring and the rings of its holes."""
    rings = mask_to_rings(mask)
    outer = [ring for ring in rings if ring_area(ring) > 0]
    parts = [[ring] for ring in outer]
    for hole in rings:
        if ring_area(hole) < 0:
            parts[_around(hole, outer)].append(hole)
    if tolerance > 0:
        simple = [[simplify_ring(ring, tolerance) for ring in part] for part in parts]
        # Rings that shrink to a line are left out, with the holes of an outer one.
        parts = [[r for r in part if len(r) >= 3] for part in simple if len(part[0]) >= 3]
    return parts


def _around(hole: Ring, outer: Sequence[Ring]) -> int:
    """Index of the smallest outer ring around a hole; outer rings are sorted, largest first."""
    # The mask lies to the right of each step, y down: the centre of a pixel beside the hole.
    step = np.sign(hole[1] - hole[0])
    x, y = hole[0] + step / 2 + np.array([-step[1], step[0]]) / 2
    for index in range(len(outer) - 1, 0, -1):
        ring = outer[index]
        if (ring.min(axis=0) < (x, y)).all() and (ring.max(axis=0) > (x, y)).all():
            ends = np.roll(ring, -1, axis=0)
            # Corners are whole numbers and edges vertical or horizontal: no edge meets the centre.
            right = (ring[:, 0] > x) & ((ring[:, 1] > y) != (ends[:, 1] > y))
            if right.sum() % 2:
                return index
    return 0


def _closed(ring: Ring) -> list[list[float]]:
    corners: list[list[float]] = ring.tolist()
    return [*corners, corners[0]]
