"""One table of all variants: on the screen, as Markdown, and as JSON with every interval."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from textsam.values.files import write_atomically

from ...evaluation.figures.bootstrap import Interval, Score, mean_interval, paired_interval
from ...evaluation.table import show_table
from .measure import FIGURES
from .run import Outcome

__all__ = [
    "COLUMNS",
    "MARGIN",
    "NOTES",
    "SHOWN",
    "figures_of",
    "markdown_table",
    "show_outcomes",
    "write_reports",
]

# How far a pathway listens: IoU by the right phrase less that by a wrong one, object by object.
MARGIN = "right - wrong"
SHOWN: Mapping[str, tuple[str, ...]] = {**FIGURES, "pathway": (*FIGURES["pathway"], MARGIN)}
_FIGURES = tuple(figure for kind in SHOWN.values() for figure in kind)
COLUMNS = ("group", "variant", "trained, M", "s", *_FIGURES)
NOTES = (
    "mean IoU over objects [95% bootstrap interval over photos]; under it the difference to the "
    "group's first row on the",
    "same objects; a * marks a difference whose interval is clear of zero. One seed: compare with "
    "the group 'seed'.",
)

# A figure with its interval, and that of the difference to the group's reference.
Figure = tuple[Interval, Interval | None]


def figures_of(outcomes: Sequence[Outcome]) -> list[dict[str, Figure]]:
    """The figures of each outcome, in order; those of a failed one are empty."""
    references = {
        o.variant.group: o for o in outcomes if o.variant.is_reference and o.failure is None
    }
    found: list[dict[str, Figure]] = []
    for outcome in outcomes:
        reference = references.get(outcome.variant.group)
        row: dict[str, Figure] = {}
        for figure, scores in _shown(outcome).items():
            if not scores:
                continue
            difference = None
            if reference is not None and not outcome.variant.is_reference:
                difference = paired_interval(scores, _shown(reference)[figure])
            row[figure] = (mean_interval(scores), difference)
        found.append(row)
    return found


def show_outcomes(outcomes: Sequence[Outcome]) -> None:
    """Print the table."""
    notes = [*NOTES, *(f"{_title(o)} failed: {o.failure}" for o in outcomes if o.failure)]
    show_table("Ablations", COLUMNS, _rows(outcomes, line_break="\n"), notes=notes)


def markdown_table(outcomes: Sequence[Outcome]) -> str:
    """The same table for a page."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    rows = _rows(outcomes, line_break="<br>")
    lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def write_reports(outcomes: Sequence[Outcome], folder: Path) -> None:
    """Write `table.md` and `ablation.json`."""
    text = f"{markdown_table(outcomes)}\n{' '.join(NOTES)}\n"
    write_atomically(folder / "table.md", text.encode())
    content = [
        _record(outcome, figures)
        for outcome, figures in zip(outcomes, figures_of(outcomes), strict=True)
    ]
    write_atomically(folder / "ablation.json", (json.dumps(content, indent=1) + "\n").encode())


def _shown(outcome: Outcome) -> dict[str, Sequence[Score]]:
    """The scores with the margin, where there are right and wrong phrases."""
    scores = dict(outcome.scores)
    if set(FIGURES["pathway"]) <= set(scores):
        right, wrong = (scores[figure] for figure in FIGURES["pathway"])
        values = {(s.photo, s.object): s.value for s in wrong}
        scores[MARGIN] = [replace(s, value=s.value - values[s.photo, s.object]) for s in right]
    return scores


def _rows(outcomes: Sequence[Outcome], *, line_break: str) -> list[list[str]]:
    rows = []
    for outcome, figures in zip(outcomes, figures_of(outcomes), strict=True):
        trained = outcome.parameters.get("trained")
        row = [
            outcome.variant.group,
            outcome.variant.name,
            "-" if trained is None else f"{trained / 1e6:.2f}",
            "failed" if outcome.failure else f"{outcome.seconds:.0f}",
        ]
        row += [
            _cell(figures[name], line_break=line_break) if name in figures else "-"
            for name in _FIGURES
        ]
        rows.append(row)
    return rows


def _cell(figure: Figure, *, line_break: str) -> str:
    mean, difference = figure
    text = f"{mean.mean:.3f} [{mean.low:.2f}, {mean.high:.2f}]"
    if difference is None:
        return text
    mark = "*" if difference.is_clear_of_zero else ""
    bounds = f"[{difference.low:+.2f}, {difference.high:+.2f}]"
    return f"{text}{line_break}{difference.mean:+.3f} {bounds}{mark}"


def _record(outcome: Outcome, figures: dict[str, Figure]) -> dict[str, Any]:
    variant = outcome.variant
    return {
        "group": variant.group,
        "name": variant.name,
        "is_reference": variant.is_reference,
        "key": outcome.key,
        "settings": asdict(variant.settings),
        "seconds": outcome.seconds,
        "parameters": dict(outcome.parameters),
        "loss": outcome.loss,
        "failure": outcome.failure,
        "figures": {
            name: {
                **mean._asdict(),
                "difference": None if difference is None else difference._asdict(),
            }
            for name, (mean, difference) in figures.items()
        },
    }


def _title(outcome: Outcome) -> str:
    return f"{outcome.variant.group}, {outcome.variant.name}"
