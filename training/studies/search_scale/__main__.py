"""An index of a million masks: building, searching, recall, memory.

    python -m training.studies.search_scale MASKS.lance --out million.lance --rows 1000000

MASKS.lance is an index of real masks. Some of them, drawn at random, are kept back as queries; the
others go into the new index, and with them synthetic rows that are clustered like them
(`search_rows.py`; the notes under the table say how alike they are). Recall is against comparing
with every row, on the same rows.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from textsam.errors import TextSamError, require
from textsam.search.index import MaskIndex
from textsam.search.records import MaskRow, read_rows, read_vectors
from textsam.search.spaces import MaskVectors, SpaceName, VectorSpace

from ...evaluation.table import (
    BadInputError,
    at_least,
    check_output,
    complain,
    number,
    show_table,
    write_report,
)
from .synthetic_rows import Clusters, find_clusters, likeness, synthetic_rows
from .timed_queries import Asked, ask_elsewhere

__all__ = ["build", "main", "measure", "read_real"]

FloatArray = npt.NDArray[np.float32]

_BATCH = 20_000
_K = 10
_SCANS = 15


def read_real(
    uri: str, *, queries: int, seed: int
) -> tuple[list[MaskRow], MaskVectors, dict[SpaceName, FloatArray]]:
    """Read an index of real masks: the rows and vectors that stay, and the vectors kept back.

    Raises:
        BadInputError: Too few rows, or not both spaces.
    """
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


def build(
    uri: str, rows: list[MaskRow], vectors: MaskVectors, *, count: int, seed: int
) -> dict[str, Any]:
    """Fill an index with real and synthetic rows, and build its search structures.

    An index that a run before this one has begun is gone on with: rows that are there stay.

    Returns:
        `add_seconds` and `build_seconds`; `rows`; `alike`, by space what real and synthetic
        neighbourhoods look like.
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
        return {
            "rows": index.count(),
            "added": added,
            "add_seconds": middle - start,
            "build_seconds": time.perf_counter() - middle,
            "engine": dict(index.engine.describe()),
            "alike": _alike(clusters, spaces, seed=seed),
        }


def _alike(
    clusters: Clusters, spaces: Mapping[SpaceName, VectorSpace], *, seed: int
) -> dict[str, Any]:
    """Neighbourhoods of as many synthetic rows as there are real ones, beside theirs."""
    count = len(clusters.vectors["clip"])
    _, made = synthetic_rows(clusters, spaces, count, seed=seed + 1)
    return {
        name: {
            "real": asdict(likeness(clusters.vectors[name])),
            "synthetic": asdict(likeness(made.vectors[name])),
        }
        for name in spaces
    }


def measure(uri: str, queries: Mapping[SpaceName, FloatArray]) -> dict[str, Any]:
    """Ask by the index, by scanning, and by numpy, each in a process of its own."""
    fast = ask_elsewhere(uri, queries, k=_K, way="index")
    few = ask_elsewhere(uri, queries, k=_K, way="index", datasets=["synthetic/1"])
    # Each reads every vector from disk.
    some = {space: vectors[:_SCANS] for space, vectors in queries.items()}
    scan = ask_elsewhere(uri, some, k=_K, way="scan")
    plain = ask_elsewhere(uri, queries, k=_K, way="numpy")
    figures: dict[str, Any] = {"peak": {"index": fast.peak, "scan": scan.peak, "numpy": plain.peak}}
    for space in queries:
        figures[space] = {
            **_times(fast, space),
            "filtered": _times(few, space),
            "scan": _times(scan, space),
            "numpy": _times(plain, space),
            "recall": _recall(fast.found[space], plain.found[space]),
            "scan_recall": _recall(scan.found[space], plain.found[space][:_SCANS]),
        }
    return figures


def _times(asked: Asked, space: SpaceName) -> dict[str, float]:
    """Milliseconds of a query: the median, and what 95 of 100 stay below."""
    p50, p95 = np.percentile(asked.seconds[space], [50, 95]) * 1e3
    return {"p50": float(p50), "p95": float(p95)}


def _recall(found: list[list[str]], exact: list[list[str]]) -> float:
    shares = [len(set(a) & set(b)) / len(b) for a, b in zip(found, exact, strict=True)]
    return float(np.mean(shares))


def _show(built: Mapping[str, Any], figures: Mapping[str, Any]) -> None:
    rows = []
    for space in ("clip", "sam"):
        row = figures[space]
        rows.append(
            [
                space,
                *(number(row[key], digits=1) for key in ("p50", "p95")),
                number(row["filtered"]["p50"], digits=1),
                number(row["recall"], digits=4),
                number(row["numpy"]["p50"], digits=0),
                number(row["numpy"]["p50"] / row["p50"], digits=1),
                number(row["scan"]["p50"], digits=0),
                number(row["scan"]["p50"] / row["p50"], digits=1),
            ]
        )
    columns = ["space", "p50 ms", "p95 ms", "filtered p50", f"recall@{_K}"]
    columns += ["numpy ms", "times", "scan ms", "times"]
    peak = figures["peak"]
    notes = [
        f"{built['rows']} rows, {built['added']} of them added in {built['add_seconds']:.0f} s; "
        f"search structures built in {built['build_seconds']:.0f} s",
        f"highest resident size of a process that queries: {peak['index']:.0f} MiB by the index, "
        f"{peak['scan']:.0f} by scanning, {peak['numpy']:.0f} with numpy",
        "numpy: all vectors in memory, one query after the other; scan: from disk, without index",
    ]
    for space, alike in built["alike"].items():
        a, b = alike["real"], alike["synthetic"]
        notes.append(
            f"{space}, real / synthetic: cosine to nearest {a['first']:.3f} / {b['first']:.3f}, "
            f"to tenth {a['tenth']:.3f} / {b['tenth']:.3f}; intrinsic dimension "
            f"{a['dimension']:.1f} / {b['dimension']:.1f}"
        )
    show_table("Search in an index of masks", columns, rows, notes=notes)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}",
        description="Build an index of real and synthetic rows; measure building, searching, "
        "recall and memory.",
    )
    parser.add_argument("index", help="an index of real masks, in both spaces")
    parser.add_argument("--out", required=True, help="the new index: a folder or an object store")
    parser.add_argument("--rows", type=at_least(1000), default=1_000_000, metavar="N")
    parser.add_argument("--queries", type=at_least(1), default=100, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file for all figures")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code (2: the input is at fault)."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        check_output(options.json, "--json")
        rows, vectors, queries = read_real(
            options.index, queries=options.queries, seed=options.seed
        )
        built = build(options.out, rows, vectors, count=options.rows, seed=options.seed)
        figures = measure(options.out, queries)
    except (BadInputError, TextSamError, ValueError) as error:
        return complain(parser, error)
    write_report(options.json, settings=vars(options), sets=[{"built": built, **figures}])
    _show(built, figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
