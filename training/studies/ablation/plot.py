"""One picture of all variants: a panel for each group, a dot with its interval for each figure."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from textsam.errors import require
from textsam.values.files import write_atomically

from .report import MARGIN, SHOWN, Figure, figures_of
from .run import Outcome
from .variants import GROUPS

__all__ = ["plot_outcomes"]

# Okabe and Ito's colours, which colour-blind readers tell apart; and a shape for each figure.
_STYLES = {
    "1 click": ("#0072B2", "o"),
    "3 clicks": ("#56B4E9", "s"),
    "box": ("#E69F00", "D"),
    "text": ("#009E73", "o"),
    "wrong text": ("#D55E00", "X"),
    MARGIN: ("#000000", "d"),
}
_INCHES_WIDE = 8.0
_INCHES_PER_VARIANT = 0.55


def plot_outcomes(outcomes: Sequence[Outcome], path: Path) -> Path:
    """Draw a PNG; a variant that failed has an empty line.

    Raises:
        MissingExtraError: Without matplotlib.
        ValueError: There is nothing to draw.
    """
    if not any(outcome.scores for outcome in outcomes):
        raise ValueError("no variant has a result yet, so there is nothing to draw")
    figure_type = require("matplotlib.figure", "train").Figure
    all_figures = figures_of(outcomes)
    groups = [g for g in GROUPS if any(o.variant.group == g for o in outcomes)]
    sizes = [sum(o.variant.group == g for o in outcomes) for g in groups]
    height = sum(sizes) * _INCHES_PER_VARIANT + 0.75 * len(groups)
    figure = figure_type(figsize=(_INCHES_WIDE, height), layout="constrained")
    panels = figure.subplots(len(groups), 1, sharex=True, squeeze=False, height_ratios=sizes)
    for panel, group in zip(panels[:, 0], groups, strict=True):
        rows = [
            (outcome, figures)
            for outcome, figures in zip(outcomes, all_figures, strict=True)
            if outcome.variant.group == group
        ]
        _draw(panel, group, rows)
    panels[-1, 0].set_xlabel("mean IoU, with 95% bootstrap interval over photos")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return write_atomically(path, buffer.getvalue())


def _draw(panel: Any, group: str, rows: Sequence[tuple[Outcome, dict[str, Figure]]]) -> None:
    names = SHOWN[rows[0][0].variant.kind]
    spread = 0.5 / len(names)
    for number, name in enumerate(names):
        color, marker = _STYLES[name]
        drawn = [(y, figures[name][0]) for y, (_, figures) in enumerate(rows) if name in figures]
        if not drawn:
            continue
        shift = (number - (len(names) - 1) / 2) * spread
        panel.errorbar(
            [mean.mean for _, mean in drawn],
            [y + shift for y, _ in drawn],
            xerr=[
                [mean.mean - mean.low for _, mean in drawn],
                [mean.high - mean.mean for _, mean in drawn],
            ],
            fmt=marker,
            color=color,
            markersize=5,
            elinewidth=1.2,
            label=name,
        )
    labels = [o.variant.name + (" (failed)" if o.failure else "") for o, _ in rows]
    panel.set_yticks(range(len(rows)), labels)
    panel.set_ylim(len(rows) - 0.5, -0.5)
    panel.set_xlim(-0.05, 1)
    panel.set_title(GROUPS[group], loc="left", fontsize=10, fontweight="bold")
    panel.grid(axis="x", color="0.9")
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    if any(figures for _, figures in rows):
        panel.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8)
