"""An index of a million masks: building, searching, recall, memory.

    python -m training.studies.search_scale MASKS.lance --out million.lance --rows 1000000

MASKS.lance is an index of real masks. Some of them, drawn at random, are kept back as queries; the
others go into the new index, and with them synthetic rows that are clustered like them
(`synthetic_rows.py`; the notes under the table say how alike they are). Recall is against comparing
with every row, on the same rows.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from textsam.search.records import SpaceName

from ...evaluation.command import Options, run_command, write_report
from ...evaluation.data_sets import BadInputError
from ...evaluation.figures.result_table import Column, show_figures
from .synthetic_rows import FloatArray, build_index, read_real
from .timed_queries import K, TimedQueries, time_queries

_SCANS = 15  # queries that read every vector from disk; each takes as long


@dataclass(frozen=True, kw_only=True)
class ScaleOptions(Options):
    """Build an index of real and synthetic rows; measure building, searching, recall and memory."""

    minimum: ClassVar[Mapping[str, int]] = {"rows": 1000, "queries": 1}

    index: str  # An index of real masks, in both spaces
    out: str = ""  # The new index: a folder or an object store
    rows: int = 1_000_000  # Rows of the new index
    queries: int = 100  # Real masks that are kept back as queries
    seed: int = 0  # Decides queries and synthetic rows
    json: Path | None = None  # File for all figures

    def check(self) -> None:
        """Also refuse a missing place for the new index."""
        super().check()
        if not self.out:
            raise BadInputError("no place for the new index. Type: --out million.lance")


def measure_queries(uri: str, queries: Mapping[SpaceName, FloatArray]) -> dict[str, Any]:
    """Query by the index, by scanning, and with numpy, each in a process of its own."""
    fast = time_queries(uri, queries, way="index")
    filtered = time_queries(uri, queries, way="index", datasets=["synthetic/1"])
    few = {space: vectors[:_SCANS] for space, vectors in queries.items()}
    scan = time_queries(uri, few, way="scan")
    plain = time_queries(uri, queries, way="numpy")
    figures: dict[str, Any] = {"peak": {"index": fast.peak, "scan": scan.peak, "numpy": plain.peak}}
    for space in queries:
        figures[space] = {
            **_milliseconds(fast, space),
            "filtered": _milliseconds(filtered, space),
            "scan": _milliseconds(scan, space),
            "numpy": _milliseconds(plain, space),
            "recall": _recall(fast.ids[space], plain.ids[space]),
            "scan_recall": _recall(scan.ids[space], plain.ids[space][:_SCANS]),
        }
    return figures


def _milliseconds(queries: TimedQueries, space: SpaceName) -> dict[str, float]:
    """Of one query: the median, and the 95th percentile."""
    p50, p95 = np.percentile(queries.seconds[space], [50, 95]) * 1e3
    return {"p50": float(p50), "p95": float(p95)}


def _recall(ids: list[list[str]], exact: list[list[str]]) -> float:
    shares = [len(set(a) & set(b)) / len(b) for a, b in zip(ids, exact, strict=True)]
    return float(np.mean(shares))


def _show(built: Mapping[str, Any], figures: Mapping[str, Any]) -> None:
    def times(way: str) -> Column:
        return Column("times", lambda row: row[way]["p50"] / row["p50"], 1)

    columns = [
        Column("space", "space"),
        Column("p50 ms", "p50", 1),
        Column("p95 ms", "p95", 1),
        Column("filtered p50", "filtered/p50", 1),
        Column(f"recall@{K}", "recall", 4),
        Column("numpy ms", "numpy/p50", 0),
        times("numpy"),
        Column("scan ms", "scan/p50", 0),
        times("scan"),
    ]
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
    rows = [{"space": space, **figures[space]} for space in ("clip", "sam")]
    show_figures("Search in an index of masks", columns, rows, notes=notes)


def _run(options: ScaleOptions) -> None:
    try:
        rows, vectors, queries = read_real(
            options.index, queries=options.queries, seed=options.seed
        )
        built = build_index(options.out, rows, vectors, count=options.rows, seed=options.seed)
        figures = measure_queries(options.out, queries)
    except ValueError as error:  # of an index that is broken or of other spaces
        raise BadInputError(str(error)) from error
    write_report(options, [{"built": built, **figures}])
    _show(built, figures)


main = partial(run_command, ScaleOptions, _run)

if __name__ == "__main__":
    sys.exit(main())
