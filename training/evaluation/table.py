"""What the evaluation commands share: options, the run over data sets, tables, JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from textsam.errors import TextSamError
from textsam.values.files import write_atomically

from .sets import BadInputError, DataSet, read_sets

__all__ = [
    "BadInputError",
    "DataSet",
    "add_common_options",
    "at_least",
    "check_output",
    "complain",
    "load_model",
    "measure_each",
    "measure_files",
    "number",
    "numbers",
    "progress",
    "read_sets",
    "show_table",
    "write_report",
]

T = TypeVar("T")
SetT = TypeVar("SetT")

_DATA = (
    "photos with masks, each a table row: a file in the schema of training/data/parquet.py, or a "
    "line of training/data/specs.py that names a source: voc:VOCdevkit, sbd:, davis:, grabcut:, "
    "berkeley:, ade20k:, coco:FILE.json@FOLDER, lvis:, sa1b:, pngs:, hf:"
)

# Wide enough for every table here; a pipe has no width of its own and rich would assume 80.
_PIPE_COLUMNS = 140


def add_common_options(
    parser: argparse.ArgumentParser, *, data: str = _DATA, models: bool = False
) -> None:
    """Add the options that every evaluation has.

    Args:
        parser: Takes them.
        data: What is measured, for the help.
        models: Whether several models are compared.
    """
    parser.add_argument("data", nargs="+", metavar="DATA", help=data)
    what = 'what TextSAM.from_pretrained takes: "tiny", a folder or a hub id'
    if models:
        parser.add_argument("--models", nargs="+", required=True, metavar="M", help=what)
    else:
        parser.add_argument("--model", default="tiny", metavar="M", help=f"{what} (default: tiny)")
    parser.add_argument(
        "--json",
        type=Path,
        metavar="F",
        help="also write settings, versions, means and one record per item to this file",
    )
    parser.add_argument(
        "--limit",
        type=at_least(1),
        metavar="N",
        help="measure only N photos of each set, spread evenly over it; of a stream the first N "
        "(default: all)",
    )
    parser.add_argument(
        "--seed",
        type=at_least(0),
        default=0,
        metavar="S",
        help="decides every random choice; the same seed gives the same items (default: 0)",
    )


def at_least(bound: int) -> Callable[[str], int]:
    """An argparse type: an integer that is not below a bound."""

    def integer(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = bound - 1
        if value < bound:
            raise argparse.ArgumentTypeError(f"got {text!r}; wanted an integer >= {bound}")
        return value

    return integer


def measure_files(
    options: argparse.Namespace,
    measure: Callable[[Any, DataSet], dict[str, Any]],
    *,
    protocol: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Read the files, load the model, measure file by file, write the JSON after each.

    Args:
        options: What `add_common_options` parsed, and the command's own options.
        measure: Measures one file with a model.
        protocol: Settings that the JSON shall hold beside the options.

    Raises:
        BadInputError: The input, the model or the place for the JSON is at fault.
        TextSamError: The model cannot do what is asked of it.
    """
    return measure_each(options, read_sets, measure, protocol=protocol)


def measure_each(
    options: argparse.Namespace,
    read: Callable[..., Sequence[SetT]],
    measure: Callable[[Any, SetT], dict[str, Any]],
    *,
    protocol: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """As `measure_files`, of sets that `read(data, limit=...)` opens; they need not have masks."""
    check_output(options.json, "--json")
    check_output(getattr(options, "sheet", None), "--sheet")
    check_output(getattr(options, "plot", None), "--plot")
    sets = read(options.data, limit=options.limit)
    model = load_model(options.model)
    settings = {**vars(options), "protocol": protocol}
    measured: list[dict[str, Any]] = []
    for data in sets:
        broken = getattr(data, "broken", 0)
        left_out = {"broken": broken} if broken else {}
        measured.append({**measure(model, data), **left_out})
        # After every file, so that a run that is cut off has left what it knew.
        write_report(options.json, settings=settings, sets=measured)
    return measured


def load_model(name: str) -> Any:
    """Load a `TextSAM`.

    Raises:
        BadInputError: There is no such model, or it cannot be loaded.
    """
    from textsam import TextSAM

    try:
        return TextSAM.from_pretrained(name)
    except (TextSamError, OSError, ValueError) as error:
        raise BadInputError(f"cannot load model {name!r}: {error}") from error


def complain(parser: argparse.ArgumentParser, error: Exception) -> int:
    """Say on one line of stderr why the command stops; returns its exit code, 2."""
    print(f"{parser.prog}: error: {' '.join(str(error).split())}", file=sys.stderr)
    return 2


def progress(items: Sequence[T], name: str) -> Iterable[T]:
    """Go through items with a bar on stderr, if that is a terminal."""
    console = Console(stderr=True)
    return track(items, description=name, console=console, disable=not console.is_terminal)


def number(value: float | None, *, digits: int = 3) -> str:
    """A figure for a table cell; a dash if there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def numbers(means: Mapping[str, Any], keys: Iterable[str], *, digits: int = 3) -> list[str]:
    """Several figures for table cells."""
    return [number(means[key], digits=digits) for key in keys]


def show_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    notes: Iterable[str] = (),
    width: int = _PIPE_COLUMNS,
) -> None:
    """Print a table, names to the left and figures to the right, and notes under it.

    Args:
        title: What it shows.
        columns: Headings.
        rows: Cells.
        notes: Lines below.
        width: Columns of the screen, where the output is no terminal and has none of its own.
    """
    console_width = None if sys.stdout.isatty() else width
    console = Console(width=console_width, markup=False, highlight=False)
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for note in notes:
        console.print(note)


def check_output(path: Path | None, option: str) -> None:
    """Refuse a place for a file that cannot be written, before hours are spent.

    Raises:
        BadInputError: Its folder is not there or not writable, or it is a folder.
    """
    if path is None:
        return
    folder = path.resolve().parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise BadInputError(f"{option} {path}: wanted a file in a folder that exists")


def write_report(
    path: Path | None, *, settings: Mapping[str, Any], sets: Sequence[Mapping[str, Any]]
) -> None:
    """Write what was measured so far; nothing if no file was asked for."""
    if path is None:
        return
    report = {"settings": settings, "versions": _versions(), "sets": list(sets)}
    text = json.dumps(report, indent=1, allow_nan=False, default=str)
    write_atomically(path, (text + "\n").encode())


def _versions() -> dict[str, str | int]:
    import torch

    import textsam

    # A checkout need not be installed, so the package's metadata are not asked for its version.
    versions: dict[str, str | int] = {
        "textsam": str(getattr(textsam, "__version__", "unknown")),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }
    for package in ("torch", "numpy", "scipy", "open_clip_torch"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions
