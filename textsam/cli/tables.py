"""What commands show: tables of results and explanations, and runs over many photos."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from textsam.cli.console import TerminalProgress, make_console, print_line

if TYPE_CHECKING:
    from textsam.batch.batch_run import BatchReport, PhotoReport
    from textsam.results.explanation import Explanation
    from textsam.results.segmentation import Segmentation

# About one page of a terminal; there can be hundreds of automatic masks.
_MAX_ROWS = 40


def make_table(
    *columns: str,
    rows: Iterable[Sequence[str]] = (),
    right: Sequence[str] = (),
    title: str | None = None,
    caption: str | None = None,
    header: bool = True,
) -> Table:
    """A table in the style of all commands; use `add_row` for text with colours."""
    table = Table(
        title=title,
        title_justify="left",
        caption=caption,
        caption_justify="left",
        box=SIMPLE_HEAD,
        show_header=header,
        pad_edge=False,
    )
    for index, column in enumerate(columns):
        table.add_column(
            column,
            justify="right" if column in right else "left",
            overflow="fold",
            # Names stay on one line; the last column takes what a narrow terminal leaves.
            no_wrap=index < len(columns) - 1,
        )
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def result_table(result: Segmentation) -> Table:
    """One row per mask: label, score, IoU, box, area."""
    pixels = result.size[0] * result.size[1]
    rows = [
        (
            item.label or "-",
            _format_share(item.score),
            _format_share(item.iou),
            " ".join(f"{side:.0f}" for side in item.box),
            f"{item.area:,} px ({item.area / pixels:.1%})",
        )
        for item in result[:_MAX_ROWS]
    ]
    numbers = ("score", "iou", "box x0 y0 x1 y1", "area")
    rest = len(result) - len(rows)
    caption = f"and {rest} more" if rest else None
    return make_table("label", *numbers, rows=rows, right=numbers, caption=caption)


def explanation_table(explanation: Explanation) -> Table:
    """One row per phrase and per mask considered, with the gate that dropped it, if any."""
    table = make_table("phrase", "score", "gate", "evidence", "why", right=("score",))
    rows = explanation.short_table()
    for index, row in enumerate(rows):
        if index and row.mask is None:
            # A new phrase begins.
            table.add_section()
        phrase, subject, score, gate, reason, evidence = row.cells()
        table.add_row(
            escape(phrase) if row.mask is None else f"  {subject}",
            score,
            f"[{'green' if row.gate is None else 'yellow'}]{gate}[/]",
            escape(evidence),
            escape(reason),
        )
    if rest := len(explanation.table()) - len(rows):
        table.caption = f"and {rest} more; a .json file has them all"
    return table


def run_many(
    run: Callable[..., BatchReport], *, on_photo: Callable[[PhotoReport], None] | None = None
) -> None:
    """Make a run over many photos, `run(on_progress=...)`, with a progress bar.

    Prints a summary at the end, unless `on_photo` prints each photo. Exits with 1 if one failed.
    """
    with TerminalProgress() as bar:

        def show(photo: PhotoReport) -> None:
            bar.show(photo.index + 1, photo.total, photo.source.name)
            if photo.error is not None:
                bar.show_failure(str(photo.source), photo.error)
            if on_photo is not None:
                on_photo(photo)

        report = run(on_progress=show)
    if on_photo is None:
        _print_summary(report)
    if report.failed:
        raise typer.Exit(1)


def _print_summary(report: BatchReport) -> None:
    """One row per label (in how many photos, how many masks), and one line about the run."""
    from textsam.batch.find_photos import count_suffixes

    if report.masks:
        rows = [
            (label or "-", str(sum(label in photo.masks for photo in report.photos)), str(masks))
            for label, masks in report.masks.items()
        ]
        numbers = ("photos", "masks")
        make_console().print(make_table("label", *numbers, rows=rows, right=numbers))
    kept = sum(photo.status == "kept" for photo in report.photos)
    failed = len(report.failed)
    parts = [f"{len(report.photos) - kept - failed} done"]
    parts += [f"{kept} kept from an earlier run"] if kept else []
    parts += [f"{failed} failed"] if failed else []
    print_line(f"{len(report.photos)} photos: {', '.join(parts)}; in {report.out_dir}")
    if report.left_out:
        print_line(f"left out, as they are not read: {count_suffixes(report.left_out)}")
    if failed:
        errors = report.out_dir / "errors.jsonl"
        print_line(f"errors are listed in {errors}; the same command tries these photos again")


def _format_share(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"
