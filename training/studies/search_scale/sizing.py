"""What an index of a billion masks would take, from what smaller ones took here.

    python -m training.studies.search_scale.sizing MASKS.lance --rows 20000 80000

MASKS.lance is an index of real masks, in a folder: its files say what a row takes. Two indexes with
synthetic rows like its own (`search_rows.py`) are built, and thrown away again, and say what
search structures take. Bytes grow with the rows. The time of a build is taken as a power of their
number, 1 or more, through the two that were measured. Four orders of magnitude further that is a
guess, so what is sure to come stands beside it: cells grow with the rows, and each row is compared
with the centre of each.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from textsam.errors import TextSamError
from textsam.search.engines.lance import CELL_ROWS, CELLS_SEARCHED, COMPARED, TABLE, cells_for
from textsam.search.index import MaskIndex

from ...evaluation.table import (
    BadInputError,
    at_least,
    check_output,
    complain,
    number,
    show_table,
    write_report,
)
from .__main__ import build, read_real

__all__ = ["Measured", "Sizing", "main", "measure", "size_of"]

_SIZES = (10**6, 10**7, 10**8, 10**9)
_BUILT = (20_000, 80_000)
_K = 10
_GIB = 2**30
_FLOPS = 50e9  # of a core that multiplies matrices, a second: assumed


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured.

    Attributes:
        widths: Length of a vector in each space.
        row_bytes: Of a row on disk, both vectors among them.
        structure_bytes: Of the search structures, a row.
        rows: Rows of the two indexes that were built.
        build_seconds: Of each, on the cores that the process had.
    """

    widths: tuple[int, ...]
    row_bytes: float
    structure_bytes: float
    rows: tuple[int, int]
    build_seconds: tuple[float, float]

    @property
    def power(self) -> float:
        """By which power of the rows the time of a build grows; at least 1."""
        fewer, more = self.build_seconds
        return max(1.0, math.log(more / fewer) / math.log(self.rows[1] / self.rows[0]))


@dataclass(frozen=True, kw_only=True)
class Sizing:
    """What so many masks take.

    Attributes:
        masks: Their number.
        row_bytes: All rows on disk, with their vectors.
        vector_bytes: The vectors alone, exact.
        structure_bytes: The search structures on disk.
        centre_bytes: The centres of the cells, which a query compares itself with and a reader
            holds in memory; of the widest space.
        query_bytes: Cells that a query looks into and rows that it compares exactly; widest space.
        build_hours: Of the search structures, by the power that was measured.
        centre_hours: Of one core that compares each row with all centres, in all spaces.
        embed_hours: Of one core that embeds.
        gpu_hours: Of one GPU that embeds.
    """

    masks: int
    row_bytes: float
    vector_bytes: float
    structure_bytes: float
    centre_bytes: float
    query_bytes: float
    build_hours: float
    centre_hours: float
    embed_hours: float
    gpu_hours: float


def measure(uri: str, rows: Sequence[int], *, seed: int) -> Measured:
    """Read the files of an index of real masks, and build two larger ones.

    Raises:
        BadInputError: Not a folder, too few rows, or not both spaces.
    """
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
            built = build(str(target), list(real), vectors, count=count, seed=seed)
            seconds.append(float(built["build_seconds"]))
        structures = _bytes_in(target / f"{TABLE}.lance" / "_indices") / more
    return Measured(
        widths=widths,
        row_bytes=row_bytes,
        structure_bytes=structures,
        rows=(fewer, more),
        build_seconds=(seconds[0], seconds[1]),
    )


def size_of(masks: int, measured: Measured, *, mask_seconds: float, gpu_cores: float) -> Sizing:
    """What so many masks take.

    Args:
        masks: Their number.
        measured: What one row takes.
        mask_seconds: Seconds of a core to embed one.
        gpu_cores: How many cores one GPU is worth.
    """
    width = max(measured.widths)
    embed = masks * mask_seconds / 3600
    grown = (masks / measured.rows[1]) ** measured.power
    looked_into = min(masks, CELLS_SEARCHED * CELL_ROWS) * width / 8  # one bit a dimension
    return Sizing(
        masks=masks,
        row_bytes=masks * measured.row_bytes,
        vector_bytes=masks * 4.0 * sum(measured.widths),
        structure_bytes=masks * measured.structure_bytes,
        centre_bytes=cells_for(masks) * 4.0 * width,
        query_bytes=looked_into + COMPARED * _K * 4.0 * width,
        build_hours=measured.build_seconds[1] * grown / 3600,
        centre_hours=2.0 * masks * cells_for(masks) * sum(measured.widths) / _FLOPS / 3600,
        embed_hours=embed,
        gpu_hours=embed / gpu_cores,
    )


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _show(measured: Measured, sizes: Sequence[Sizing], options: argparse.Namespace) -> None:
    columns = ["masks", "rows GiB", "of it vectors", "structures GiB", "centres GiB"]
    columns += ["a query reads MiB", "build h", "centres core-h", "embed core-days", "GPU-days"]
    rows: list[list[Any]] = [
        [
            f"{size.masks:,}",
            number(size.row_bytes / _GIB, digits=1),
            number(size.vector_bytes / _GIB, digits=1),
            number(size.structure_bytes / _GIB, digits=2),
            number(size.centre_bytes / _GIB, digits=3),
            number(size.query_bytes / 2**20, digits=1),
            number(size.build_hours, digits=1),
            number(size.centre_hours, digits=1),
            number(size.embed_hours / 24, digits=0),
            number(size.gpu_hours / 24, digits=1),
        ]
        for size in sizes
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
        f"a query (k {_K}) reads {CELLS_SEARCHED} cells and compares {COMPARED * _K} rows exactly; "
        "and it compares itself with all centres",
    ]
    show_table("Sizing of an index of masks", columns, rows, notes=notes)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}.sizing",
        description="Estimate bytes, build time and cost of a query up to a billion masks.",
    )
    parser.add_argument("index", help="an index of real masks, in both spaces, in a folder")
    parser.add_argument(
        "--rows", type=at_least(11_000), nargs=2, default=_BUILT, metavar="N", help="to be built"
    )
    parser.add_argument(
        "--mask-seconds", type=float, default=1.0, help="of a core, to embed a mask (1.0)"
    )
    parser.add_argument(
        "--gpu-cores", type=float, default=100.0, help="what a GPU is worth, in cores (100)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file for all figures")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code (2: the input is at fault)."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        check_output(options.json, "--json")
        if not (options.mask_seconds > 0 and options.gpu_cores > 0):
            raise BadInputError("--mask-seconds and --gpu-cores: wanted numbers above 0")
        measured = measure(options.index, options.rows, seed=options.seed)
    except (BadInputError, TextSamError, ValueError) as error:
        return complain(parser, error)
    sizes = [
        size_of(masks, measured, mask_seconds=options.mask_seconds, gpu_cores=options.gpu_cores)
        for masks in _SIZES
    ]
    write_report(
        options.json,
        settings=vars(options),
        sets=[{"measured": asdict(measured), "sizes": [asdict(size) for size in sizes]}],
    )
    _show(measured, sizes, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
