"""Time encoder, decoder, automatic masks and `tiny` on this machine, beside their peers.

python -m training.evaluation.speed --peers --json speed.json      # docs/speed.md; 15 minutes
python -m training.evaluation.speed --peers --quick                # 2 minutes
python -m training.evaluation.speed --rows tiny text               # some rows
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from textsam.errors import require
from textsam.modeling.config import SAM_CONFIGS, SamConfig
from textsam.values.images import load_image

from ..command import Options, run_command, write_report
from ..figures.result_table import cell, show_table
from .core_rows import CorePlan, CoreRows, SpeedRow, debug_config, memory_rows
from .equal_networks import HUGGINGFACE, OFFICIAL, OURS
from .model_rows import model_rows, text_rows
from .runtime_rows import ONNX, OPENVINO, backend_rows, decoder_row, exported_rows
from .stopwatch import Patience, gemm_rate

Group = Literal["encode", "decode", "automatic", "growth", "memory", "tiny", "text", "onnx"]
_ALL: tuple[Group, ...] = (
    "encode",
    "decode",
    "automatic",
    "growth",
    "memory",
    "tiny",
    "text",
    "onnx",
)
_LIBRARIES = (OFFICIAL, HUGGINGFACE, ONNX, OPENVINO, OURS)
_TABLES: Mapping[str, tuple[Group, ...]] = {
    "SAM core": ("encode", "decode", "automatic"),
    "Growth": ("growth",),
    "Whole model": ("tiny", "text"),
    "Other runtimes": ("onnx",),
}
_PHOTO = Path(__file__).parents[3] / "examples" / "bus.jpg"


@dataclass(frozen=True, kw_only=True)
class SpeedOptions(Options):
    """Time textsam on this machine; with --peers beside other libraries on equal weights."""

    minimum: ClassVar[Mapping[str, int]] = {"threads": 1, "rounds": 1}

    # Also time segment-anything and transformers, in turns, and compare their outputs
    peers: bool = False
    rows: tuple[Group, ...] = _ALL  # Which groups of rows
    quick: bool = False  # One round of fewer rows
    large: bool = False  # Also encode with ViT-L and ViT-H, once; takes 12 GB
    # Size of the core whose weights are random; debug has two narrow blocks, to try the command
    core: Literal["vit_b", "debug"] = "vit_b"
    model: str = "tiny"  # The whole model, of the rows "tiny" and "text"
    photo: Path = _PHOTO  # As it is for "tiny"; resized to the core's frame for "automatic"
    threads: int = 2  # Of torch
    rounds: int = 9  # At most, for each row
    budget: float = 12.0  # Seconds of a row after which no further round begins
    markdown: bool = False  # Print Markdown
    json: Path | None = None  # Also write all figures to this file


def run(options: SpeedOptions) -> None:
    """Measure, print, and write the JSON after each group, so that a cut-off run leaves it."""
    for package in ("segment_anything", "transformers") if options.peers else ():
        require(package, "test")
    torch.set_num_threads(options.threads)
    photo = load_image(options.photo)
    peak = gemm_rate()
    rows: list[SpeedRow] = []
    started = time.perf_counter()
    for row in _measure(options, photo):
        # The machine may have been busy when the run began.
        peak = max(peak, gemm_rate(repeats=2))
        rows.append(row)
        took = time.perf_counter() - started
        print(f"{took:6.0f} s  {row.name}", file=sys.stderr, flush=True)
        settings = {"gemm_gflops": peak / 1e9, "minutes": took / 60}
        write_report(options, [row.to_dict(peak) for row in rows], **settings)
    _show(options, rows, peak=peak)


def _measure(options: SpeedOptions, photo: NDArray[np.uint8]) -> Iterator[SpeedRow]:
    patience = Patience(
        rounds=1 if options.quick else options.rounds, budget=options.budget, min_rounds=1
    )
    config = debug_config() if options.core == "debug" else SAM_CONFIGS[options.core]
    groups = set(options.rows)
    if groups - {"memory", "tiny", "text"}:
        yield from _core(options, config, photo, patience)
    if "memory" in groups:
        name, count = _name_of(options.core), 16 if options.quick else 64
        yield from memory_rows(config, name=name, peers=options.peers, prompts=count)
    if "tiny" in groups:
        loads = 1 if options.quick else 3
        yield from model_rows(options.model, photo, patience, loads=loads)
    if "text" in groups:
        yield from text_rows(options.model, patience, many=8 if options.quick else 64)
    if options.large:
        for name in ("vit_l", "vit_h"):
            plan = _plan(options, SAM_CONFIGS[name], name, photo, Patience(rounds=1))
            yield from CoreRows(plan).encode()


def _core(
    options: SpeedOptions, config: SamConfig, photo: NDArray[np.uint8], patience: Patience
) -> Iterator[SpeedRow]:
    core = CoreRows(_plan(options, config, options.core, photo, patience))
    sides = () if options.quick else tuple(config.image_size * n // 4 for n in (1, 2, 3))
    for group, measure in (
        ("encode", core.encode),
        ("decode", core.decode),
        ("automatic", core.automatic),
        ("growth", partial(core.growth, sides)),
    ):
        if group in options.rows and not (options.quick and group == "growth"):
            yield from measure()
    if "onnx" in options.rows and not options.quick:
        yield from decoder_row(core, patience)
        yield from backend_rows(options.model, photo, patience)
        yield from exported_rows(options.model, photo, patience)


def _plan(
    options: SpeedOptions,
    config: SamConfig,
    name: str,
    photo: NDArray[np.uint8],
    patience: Patience,
) -> CorePlan:
    side, small = config.image_size, config.image_size < 1024
    return CorePlan(
        config=config,
        name=_name_of(name),
        peers=options.peers,
        patience=patience,
        prompts=(4, 16) if options.quick or small else (4, 16, 64, 256),
        grids=(4,) if small else (16,) if options.quick else (16, 32),
        photo=_resized(photo, side, side * 3 // 4),
    )


def _name_of(core: str) -> str:
    """As people write it: ViT-B."""
    return f"ViT-{core[-1].upper()}" if core.startswith("vit_") else core


def _resized(photo: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    from PIL import Image

    return np.asarray(Image.fromarray(photo).resize((width, height)))


def _show(options: SpeedOptions, rows: Sequence[SpeedRow], *, peak: float) -> None:
    notes = [
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, float32; products of "
        f"2048 x 2048: {peak / 1e9:.0f} GFLOP/s, of which the last column is a share;",
        "median (fastest) milliseconds; spread: slowest less fastest round as a share of the "
        "median, of textsam; error: largest difference of outputs from textsam's",
    ]
    for title, groups in _TABLES.items():
        some = [row for row in rows if row.timings and row.group in groups]
        if some:
            _show_table(title, some, peak=peak, markdown=options.markdown)
    print(*notes, sep="\n")
    for row in rows:
        if row.note:
            print(f"{row.name}: {row.note}")
        if row.figures:
            print(f"{row.name}: {', '.join(f'{n} {v:,.0f}' for n, v in row.figures.items())}")


def _show_table(title: str, rows: Sequence[SpeedRow], *, peak: float, markdown: bool) -> None:
    libraries = [name for name in _LIBRARIES if _any(rows, name)]
    peers = [name for name in libraries if name != OURS]
    columns = ["work, ms", *libraries, *(f"x {name}" for name in peers), "rounds", "spread"]
    columns += [*(["error"] if peers else []), "GFLOPs", "of GEMM"]
    cells = [_cells(row, libraries, peers, peak) for row in rows]
    if not markdown:
        show_table(title, columns, cells, width=180)
        return
    rule = ["---", *["---:"] * (len(columns) - 1)]
    print(f"**{title}**", "", sep="\n")
    for line in (columns, rule, *cells):
        print(f"| {' | '.join(line)} |")
    print()


def _any(rows: Sequence[SpeedRow], name: str) -> bool:
    return any(name in row.timings for row in rows)


def _cells(row: SpeedRow, libraries: Sequence[str], peers: Sequence[str], peak: float) -> list[str]:
    """One line of the table."""
    ours = row.timings[OURS]
    times = []
    for name in libraries:
        timing = row.timings.get(name)
        if timing is None:
            times.append("-")
            continue
        median, fastest = (
            1000 * seconds / row.each for seconds in (timing.median, min(timing.seconds))
        )
        digits = 0 if median >= 100 else 1
        times.append(f"{median:,.{digits}f} ({fastest:,.{digits}f})")
    ratios = [ours.times(row.timings[n]) if n in row.timings else None for n in peers]
    flops = row.flops.get(OURS)
    error = max(row.errors.values(), default=None)
    return [
        row.name,
        *times,
        *(cell(ratio, digits=2) for ratio in ratios),
        str(len(ours.seconds)),
        f"{ours.spread:.0%}",
        *([] if not peers else ["-" if error is None else f"{error:.0e}"]),
        "-" if flops is None else f"{flops / row.each / 1e9:,.2f}",
        "-" if flops is None else f"{flops / ours.median / peak:.0%}",
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    return run_command(SpeedOptions, run, arguments)


if __name__ == "__main__":
    sys.exit(main())
