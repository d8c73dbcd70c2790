"""Size and build time of an index of a billion masks, extrapolated from smaller ones.

    python -m training.studies.search_scale.sizing MASKS.lance --rows 20000 80000

MASKS.lance is an index of real masks, in a folder: its files give the bytes of a row. Two temporary
indexes with synthetic rows like its own (`synthetic_rows.py`) give the bytes of the search
structures. Bytes grow with the rows. The time of a build is taken as a power of their number, 1 or
more, through the two that were measured. Four orders of magnitude further that is a guess, so a
lower bound is printed beside it: every row is compared with the centre of every cell.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from textsam.search.index import MaskIndex
from textsam.search.lance_engine import CELL_ROWS, CELLS_SEARCHED, COMPARED, TABLE, cells_for

from ...evaluation.command import Options, run_command, write_report
from ...evaluation.data_sets import BadInputError
from ...evaluation.figures.result_table import Column, columns_of, show_figures
from .synthetic_rows import build_index, read_real
from .timed_queries import K

_SIZES = (10**6, 10**7, 10**8, 10**9)
_GIB = 2**30
_FLOPS = 50e9  # per second, of a core that multiplies matrices: assumed


@dataclass(frozen=True, kw_only=True)
class SizingOptions(Options):
    """Estimate bytes, build time and cost of a query up to a billion masks."""

    minimum: ClassVar[Mapping[str, int]] = {"rows": 11_000}  # from 10,000 on cells are built

    index: str  # An index of real masks, in both spaces, in a folder
    rows: tuple[int, int] = (20_000, 80_000)  # Rows of the two indexes that are built
    mask_seconds: float = 1.0  # Seconds of a core to embed a mask
    gpu_cores: float = 100.0  # How many cores one GPU is worth
    seed: int = 0  # Decides the synthetic rows
    json: Path | None = None  # File for all figures

    def check(self) -> None:
        """Also refuse times and numbers that are not positive."""
        super().check()
        if not (self.mask_seconds > 0 and self.gpu_cores > 0):
            raise BadInputError("--mask-seconds and --gpu-cores: wanted numbers above 0")


@dataclass(frozen=True, kw_only=True)
class IndexCosts:
    """Bytes and times that were measured."""

    widths: tuple[int, ...]  # length of a vector in each space
    row_bytes: float  # of a row on disk, both vectors among them
    structure_bytes: float  # of the search structures, a row
    rows: tuple[int, int]  # rows of the two indexes that were built
    build_seconds: tuple[float, float]  # of each, on the cores that the process had

    @property
    def power(self) -> float:
        """Exponent of the build time in the number of rows; at least 1."""
        fewer, more = self.build_seconds
        return max(1.0, math.log(more / fewer) / math.log(self.rows[1] / self.rows[0]))


def measure_costs(uri: str, rows: Sequence[int], *, seed: int) -> IndexCosts:
    """Read the files of an index of real masks, and build two larger ones."""
    folder = Path(uri) / f"{TABLE}.lance"
    if not folder.is_dir():
        raise BadInputError(f"{uri} is no folder with an index of masks")
    fewer, more = sorted(rows)
    with MaskIndex.open(uri) as index:
        row_bytes = _bytes_in(folder / "data") / max(1, index.count())
        widths = tuple(space.width for space in index.spaces.values())
    real, vectors, _ = read_real(uri, queries=10, seed=seed)
    if fewer < len(real) or fewer == more:
        raise BadInputError(f"--rows {fewer} {more}: wanted two numbers above {len(real)}")
    seconds = []
    with tempfile.TemporaryDirectory() as place:
        for count in (fewer, more):
            target = Path(place) / f"{count}.lance"
            built = build_index(str(target), list(real), vectors, count=count, seed=seed)
            seconds.append(float(built["build_seconds"]))
        structures = _bytes_in(target / f"{TABLE}.lance" / "_indices") / more
    return IndexCosts(
        widths=widths,
        row_bytes=row_bytes,
        structure_bytes=structures,
        rows=(fewer, more),
        build_seconds=(seconds[0], seconds[1]),
    )


def size_of(
    masks: int, measured: IndexCosts, *, mask_seconds: float, gpu_cores: float
) -> dict[str, float]:
    """Bytes and times of an index of so many masks."""
    width = max(measured.widths)  # what a query reads is of the widest space
    embed = masks * mask_seconds / 3600
    grown = (masks / measured.rows[1]) ** measured.power
    looked_into = min(masks, CELLS_SEARCHED * CELL_ROWS) * width / 8  # one bit a dimension
    return {
        "masks": masks,
        "row_bytes": masks * measured.row_bytes,  # on disk, with their vectors
        "vector_bytes": masks * 4.0 * sum(measured.widths),  # the vectors alone, exact
        "structure_bytes": masks * measured.structure_bytes,
        # A query compares itself with all centres, and a reader holds them in memory.
        "centre_bytes": cells_for(masks) * 4.0 * width,
        # Cells that a query looks into and rows that it compares exactly.
        "query_bytes": looked_into + COMPARED * K * 4.0 * width,
        "build_hours": measured.build_seconds[1] * grown / 3600,
        # Of one core that compares each row with all centres, in all spaces.
        "centre_hours": 2.0 * masks * cells_for(masks) * sum(measured.widths) / _FLOPS / 3600,
        "embed_hours": embed,  # of one core
        "gpu_hours": embed / gpu_cores,
    }


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _show(
    measured: IndexCosts, sizes: Sequence[Mapping[str, float]], options: SizingOptions
) -> None:
    columns = [
        Column("masks", lambda size: f"{size['masks']:,}"),
        Column("rows GiB", "row_bytes", 1, _GIB),
        Column("of it vectors", "vector_bytes", 1, _GIB),
        Column("structures GiB", "structure_bytes", 2, _GIB),
        Column("centres GiB", "centre_bytes", 3, _GIB),
        Column("a query reads MiB", "query_bytes", 1, 2**20),
        *columns_of("", {"build h": "build_hours", "centres core-h": "centre_hours"}, digits=1),
        Column("embed core-days", "embed_hours", 0, 24),
        Column("GPU-days", "gpu_hours", 1, 24),
    ]
    fewer, more = measured.rows
    notes = [
        f"measured: {measured.row_bytes:.0f} bytes a row of real masks, vectors "
        f"{' + '.join(map(str, measured.widths))} wide; {measured.structure_bytes:.0f} bytes a row "
        "of search structures",
        f"measured: built in {measured.build_seconds[0]:.1f} s for {fewer:,} rows and "
        f"{measured.build_seconds[1]:.1f} s for {more:,}; on by the power {measured.power:.2f}, an "
        f"estimate; centres: each row with each of them, at {_FLOPS / 1e9:g} GFLOP/s",
        f"assumed: {options.mask_seconds} s of a core to embed a mask, a GPU worth "
        f"{options.gpu_cores:g} cores; measure yours with textsam embed --limit",
        f"a query (k {K}) reads {CELLS_SEARCHED} cells and compares {COMPARED * K} rows exactly; "
        "and it compares itself with all centres",
    ]
    show_figures("Sizing of an index of masks", columns, sizes, notes=notes)


def _run(options: SizingOptions) -> None:
    try:
        measured = measure_costs(options.index, options.rows, seed=options.seed)
    except ValueError as error:  # of an index that is broken or of other spaces
        raise BadInputError(str(error)) from error
    cores = options.gpu_cores
    sizes = [
        size_of(masks, measured, mask_seconds=options.mask_seconds, gpu_cores=cores)
        for masks in _SIZES
    ]
    write_report(options, [{"measured": measured, "sizes": sizes}])
    _show(measured, sizes, options)


main = partial(run_command, SizingOptions, _run)

if __name__ == "__main__":
    sys.exit(main())
