"""Pictures of a protocol's figures: bars with their intervals, and curves.

    python -m training.evaluation.points DATA ... --plot points.png

Colours and dashes can be told apart by colour-blind readers, and every bar has its figure on it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textsam.errors import require
from textsam.values.files import write_atomically

from .intervals import Interval

# Okabe and Ito's colours.
_COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#000000")
_DASHES = ("-", "--", "-.", ":")
_INCHES_WIDE = 8.0
_INCHES_PER_BAR = 0.24


@dataclass(frozen=True, kw_only=True)
class PlottedCurve:
    """A line: its name, and as many x as y; `mark` is a point on it that stands out."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    mark: tuple[float, float] | None = None


def write_bars(
    path: Path | None,
    panels: Mapping[str, Mapping[str, Interval]],
    *,
    title: str,
    axis: str,
    limits: tuple[float, float] = (0.0, 1.0),
) -> None:
    """Draw a group of bars for each panel; nothing without a path or without a bar."""
    panels = {name: bars for name, bars in panels.items() if bars}
    if path is None or not panels:
        return
    names = list(dict.fromkeys(name for group in panels.values() for name in group))
    count = sum(len(group) for group in panels.values())
    figure, axes = _figure(1.2 + _INCHES_PER_BAR * (count + len(panels)))
    place, ticks, labels = 0.0, [], []
    for bars in panels.values():
        start = place
        for name, bar in bars.items():
            color = _COLORS[names.index(name) % len(_COLORS)]
            error = [[bar.mean - bar.low], [bar.high - bar.mean]]
            # The legend takes a name once, from the first panel that has it.
            label = None if name in labels else name
            axes.barh(place, bar.mean, color=color, xerr=error, label=label)
            axes.text(0.005, place, f"{bar.mean:.3f}", va="center", fontsize=7, color="white")
            labels.append(name)
            place += 1
        ticks.append((start + place - 1) / 2)
        place += 1
    axes.set_yticks(ticks, list(panels))
    # The first group at the top, as in the table.
    axes.invert_yaxis()
    axes.set_xlim(*limits)
    axes.set_xlabel(f"{axis}, with 95% bootstrap interval over photos")
    axes.grid(axis="x", color="0.9")
    _save(figure, axes, path, title=title)


def write_curves(
    path: Path | None,
    curves: Sequence[PlottedCurve],
    *,
    title: str,
    axes_names: tuple[str, str],
    limits: tuple[tuple[float, float], tuple[float, float]] | None = None,
) -> None:
    """Draw lines; nothing without a path or without a line."""
    if path is None or not curves:
        return
    figure, axes = _figure(4.5)
    for number, curve in enumerate(curves):
        color = _COLORS[number % len(_COLORS)]
        dash = _DASHES[number // len(_COLORS) % len(_DASHES)]
        axes.plot(curve.x, curve.y, dash, color=color, label=curve.name)
        if curve.mark is not None:
            axes.plot(*curve.mark, "o", color=color)
    if all(isinstance(x, int) for curve in curves for x in curve.x):  # no half clicks
        axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel(axes_names[0])
    axes.set_ylabel(axes_names[1])
    if limits is not None:
        axes.set_xlim(*limits[0])
        axes.set_ylim(*limits[1])
    axes.grid(color="0.9")
    _save(figure, axes, path, title=title)


def _figure(height: float) -> tuple[Any, Any]:
    figure_type = require("matplotlib.figure", "eval").Figure
    figure = figure_type(figsize=(_INCHES_WIDE, height), layout="constrained")
    return figure, figure.subplots()


def _save(figure: Any, axes: Any, path: Path, *, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    write_atomically(path, buffer.getvalue())
