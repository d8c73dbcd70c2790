"""Pictures of a protocol's figures: bars with their intervals, and curves.

    python -m training.evaluation.points DATA ... --plot points.png

Colours and dashes are told apart by colour-blind readers, and every bar has its figure beside it.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textsam.errors import require
from textsam.values.files import write_atomically

from .bootstrap import Interval

__all__ = ["Curve", "add_plot_option", "write_bars", "write_curves"]

# Okabe and Ito's colours.
_COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#000000")
_DASHES = ("-", "--", "-.", ":")
_INCHES_WIDE = 8.0
_INCHES_A_BAR = 0.24


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A line: its name, and as many x as y; `mark` is a point on it that stands out."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    mark: tuple[float, float] | None = None


def add_plot_option(parser: argparse.ArgumentParser, what: str) -> None:
    """Add `--plot FILE.png`."""
    parser.add_argument(
        "--plot", type=Path, metavar="F.png", help=f"also draw {what}; needs matplotlib"
    )


def write_bars(
    path: Path,
    panels: Mapping[str, Mapping[str, Interval]],
    *,
    title: str,
    axis: str,
    limits: tuple[float, float] | None = (0.0, 1.0),
) -> Path:
    """Draw a group of bars for each panel's name.

    Args:
        path: Where the PNG goes.
        panels: For each group (a data set), its bars by name with their intervals.
        title: Of the picture.
        axis: What the figures are.
        limits: Of the axis; by default those of a share.

    Raises:
        MissingExtraError: Without matplotlib.
        ValueError: There is no bar.
    """
    bars = sum(len(group) for group in panels.values())
    if not bars:
        raise ValueError("there is nothing to draw: no group has a figure")
    names = list(dict.fromkeys(name for group in panels.values() for name in group))
    height = 1.2 + _INCHES_A_BAR * (bars + len(panels))
    figure, axes = _figure(height)
    place, ticks, labels = 0.0, [], []
    for figures in panels.values():
        start = place
        for name, value in figures.items():
            color = _COLORS[names.index(name) % len(_COLORS)]
            error = [[value.mean - value.low], [value.high - value.mean]]
            first = name not in labels
            axes.barh(place, value.mean, color=color, xerr=error, label=name if first else None)
            axes.text(0.005, place, f"{value.mean:.3f}", va="center", fontsize=7, color="white")
            labels.append(name)
            place += 1
        ticks.append((start + place - 1) / 2)
        place += 1
    axes.set_yticks(ticks, list(panels))
    axes.invert_yaxis()
    if limits is not None:
        axes.set_xlim(*limits)
    axes.set_xlabel(f"{axis}, with 95% bootstrap interval over photos")
    axes.grid(axis="x", color="0.9")
    return _save(figure, axes, path, title=title)


def write_curves(
    path: Path,
    curves: Sequence[Curve],
    *,
    title: str,
    axes_names: tuple[str, str],
    limits: tuple[tuple[float, float], tuple[float, float]] | None = None,
) -> Path:
    """Draw lines.

    Args:
        path: Where the PNG goes.
        curves: The lines.
        title: Of the picture.
        axes_names: What x and y are.
        limits: Of x and y.

    Raises:
        MissingExtraError: Without matplotlib.
        ValueError: There is no curve.
    """
    if not curves:
        raise ValueError("there is nothing to draw: no curve")
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
    return _save(figure, axes, path, title=title)


def _figure(height: float) -> tuple[Any, Any]:
    figure_type = require("matplotlib.figure", "eval").Figure
    figure = figure_type(figsize=(_INCHES_WIDE, height), layout="constrained")
    return figure, figure.subplots()


def _save(figure: Any, axes: Any, path: Path, *, title: str) -> Path:
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return write_atomically(path, buffer.getvalue())
