"""An index of real and synthetic rows, of any size."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from textsam.errors import require
from textsam.search.index import MaskIndex
from textsam.search.records import MaskRow, MaskVectors, SpaceName, read_rows, read_vectors

from ...evaluation.data_sets import BadInputError
from .synthetic_rows import find_clusters, likeness, synthetic_rows

_BATCH = 20_000


def read_real(
    uri: str, *, queries: int, seed: int
) -> tuple[list[MaskRow], MaskVectors, dict[SpaceName, npt.NDArray[np.float32]]]:
    """Read an index of real masks: the rows and vectors that stay, and the vectors kept back."""
    rows: list[MaskRow] = []
    parts: dict[SpaceName, list[npt.NDArray[np.float32]]] = {"clip": [], "sam": []}
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
            "real": asdict(likeness(clusters.vectors[name])),
            "synthetic": asdict(likeness(synthetic.vectors[name])),
        }
        for name in spaces
    }
    return built | {"alike": alike}
