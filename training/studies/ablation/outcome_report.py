"""One table of all variants: on the screen, as Markdown and as JSON; and one plot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from textsam.values.files import write_atomically

from ...evaluation.figures.charts import write_bars
from ...evaluation.figures.intervals import Interval, Score, mean_interval, paired_interval
from ...evaluation.figures.result_table import show_table
from .outcomes import FIGURES, Outcome

# How far a pathway listens: IoU by the right phrase less that by a wrong one, object by object.
MARGIN = "right - wrong"
_FIGURES = (*FIGURES["core"], *FIGURES["pathway"], MARGIN)
COLUMNS = ("group", "variant", "trained, M", "s", *_FIGURES)
_NOTES = (
    "mean IoU over objects [95% bootstrap interval over photos]; under it the difference to the "
    "group's first row on the",
    "same objects; a * marks a difference whose interval is clear of zero. One seed: compare with "
    "the group 'seed'.",
)

# A figure with its interval, and that of the difference to the group's reference.
Figure = tuple[Interval, Interval | None]


def figures_of(outcomes: Sequence[Outcome]) -> list[dict[str, Figure]]:
    """The figures of each outcome, in order; those of a failed one are empty."""
    every = [_with_margin(outcome) for outcome in outcomes]
    references = {
        outcome.variant.group: scores
        for outcome, scores in zip(outcomes, every, strict=True)
        if outcome.variant.is_reference and outcome.failure is None
    }
    rows: list[dict[str, Figure]] = []
    for outcome, scores in zip(outcomes, every, strict=True):
        reference = {} if outcome.variant.is_reference else references.get(outcome.variant.group)
        rows.append(
            {
                name: (
                    mean_interval(own),
                    paired_interval(own, reference[name]) if reference else None,
                )
                for name, own in scores.items()
            }
        )
    return rows


def show_outcomes(outcomes: Sequence[Outcome]) -> None:
    """Print the table."""
    failed = [
        f"{o.variant.group}, {o.variant.name} failed: {o.failure}" for o in outcomes if o.failure
    ]
    rows = _rows(outcomes, line_break="\n")
    show_table("Ablations", COLUMNS, rows, notes=[*_NOTES, *failed])


def markdown_table(outcomes: Sequence[Outcome]) -> str:
    """The same table for a page."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    rows = _rows(outcomes, line_break="<br>")
    lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def write_reports(outcomes: Sequence[Outcome], folder: Path) -> None:
    """Write `table.md` and `ablation.json`."""
    text = f"{markdown_table(outcomes)}\n{' '.join(_NOTES)}\n"
    write_atomically(folder / "table.md", text.encode())
    content: list[dict[str, Any]] = []
    for outcome, figures in zip(outcomes, figures_of(outcomes), strict=True):
        row = asdict(outcome)
        shown = {
            name: {**asdict(mean), "difference": difference and asdict(difference)}
            for name, (mean, difference) in figures.items()
        }
        del row["scores"]
        content.append(row.pop("variant") | row | {"figures": shown})
    write_atomically(folder / "ablation.json", (json.dumps(content, indent=1) + "\n").encode())


def plot_outcomes(outcomes: Sequence[Outcome], path: Path) -> None:
    """Draw a group of bars for each variant; nothing without a result."""
    panels = {
        f"{outcome.variant.group}: {outcome.variant.name}": {
            name: mean for name, (mean, _) in figures.items() if name != MARGIN
        }
        for outcome, figures in zip(outcomes, figures_of(outcomes), strict=True)
    }
    write_bars(path, panels, title="Ablations", axis="mean IoU")


def _with_margin(outcome: Outcome) -> dict[str, Sequence[Score]]:
    """The scores, and the margin where there are right and wrong phrases."""
    scores = {figure: own for figure, own in outcome.scores.items() if own}
    if set(FIGURES["pathway"]) <= set(scores):
        right, wrong = (scores[figure] for figure in FIGURES["pathway"])
        values = {(s.photo, s.object): s.value for s in wrong}
        scores[MARGIN] = [replace(s, value=s.value - values[s.photo, s.object]) for s in right]
    return scores


def _rows(outcomes: Sequence[Outcome], *, line_break: str) -> list[list[str]]:
    rows = []
    for outcome, figures in zip(outcomes, figures_of(outcomes), strict=True):
        trained = outcome.parameters.get("trained")
        head = [outcome.variant.group, outcome.variant.name]
        head.append("-" if trained is None else f"{trained / 1e6:.2f}")
        head.append("failed" if outcome.failure else f"{outcome.seconds:.0f}")
        cells = (_cell(figures.get(name), line_break=line_break) for name in _FIGURES)
        rows.append([*head, *cells])
    return rows


def _cell(figure: Figure | None, *, line_break: str) -> str:
    if figure is None:
        return "-"
    mean, difference = figure
    text = f"{mean.mean:.3f} [{mean.low:.2f}, {mean.high:.2f}]"
    if difference is None:
        return text
    mark = "*" if difference.is_clear_of_zero else ""
    bounds = f"[{difference.low:+.2f}, {difference.high:+.2f}]"
    return f"{text}{line_break}{difference.mean:+.3f} {bounds}{mark}"
