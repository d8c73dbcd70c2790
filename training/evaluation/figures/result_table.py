"""Tables on the screen: a column is a heading and the path of its figure in a row."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

# Wide enough for most tables; a pipe has no width of its own and rich would assume 80.
_PIPE_COLUMNS = 140


class Column(NamedTuple):
    """A column of figures."""

    heading: str
    figure: str | Callable[[Any], Any]  # path in the row ("means/iou@1"), or a function of the row
    digits: int = 3  # decimals of its numbers
    unit: float | None = None  # what its numbers are divided by


def columns_of(
    path: str, headings: Iterable[str] | Mapping[str, str], *, digits: int = 3
) -> list[Column]:
    """Columns of figures under one path of the row ("" for the row): heading -> key, or keys."""
    pairs = headings if isinstance(headings, Mapping) else {key: key for key in headings}
    return [Column(h, f"{path}/{key}" if path else key, digits) for h, key in pairs.items()]


def show_figures(
    title: str,
    columns: Sequence[Column],
    rows: Sequence[Any],
    *,
    notes: Iterable[str] = (),
    width: int = _PIPE_COLUMNS,
) -> None:
    """Print a table of figures with notes under it; nothing if there is no row."""
    if rows:
        cells = [[_cell_of(row, column) for column in columns] for row in rows]
        show_table(title, [c.heading for c in columns], cells, notes=notes, width=width)


def left_out_notes(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """What each set skipped, by reason, as notes."""
    notes = []
    for row in rows:
        counts = [f"{count} {why}" for why, count in row["skipped"].items() if count]
        if counts:
            notes.append(f"{row['name']}: left out {', '.join(counts)}")
    return notes


def _cell_of(row: Any, column: Column) -> str:
    value = figure_at(row, column.figure)
    if value is not None and column.unit is not None:
        value = float(value / column.unit)
    return cell(value, digits=column.digits)


def figure_at(row: Any, figure: str | Callable[[Any], Any]) -> Any:
    """The value at a path; None where a part of the path is None or missing."""
    if callable(figure):
        return figure(row)
    for part in figure.split("/"):
        if row is None:
            return None
        row = row.get(part) if isinstance(row, Mapping) else getattr(row, part)
    return row


def cell(value: Any, *, digits: int = 3) -> str:
    """A table cell: a dash for None, decimals for numbers, low-high for intervals."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.{digits}f}"
    low, high = getattr(value, "low", None), getattr(value, "high", None)
    if isinstance(value, tuple | list):
        low, high = value
    if low is None or high is None:
        return str(value)
    # A hyphen between negative numbers would read as a sign.
    middle = "-" if low >= 0 else " to "
    return f"{low:.{digits}f}{middle}{high:.{digits}f}"


def show_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    notes: Iterable[str] = (),
    width: int = _PIPE_COLUMNS,
) -> None:
    """Print a table of texts, the first column to the left and the others to the right."""
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
