"""Clicks and boxes on any number of sets: mIoU after n clicks, oracle of three, NoC, box mIoU.

    python -m training.evaluation.points dev/grabcut.parquet dev/coco_mval.parquet --json F.json

The paper's protocol of 23 sets (arXiv 2304.02643, Section 7.1 and Appendix D.1), see
`clicks/click_runs.py`; `--sampling random` is its variant with random points.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .clicks.click_runs import ClickConfig, measure_clicks
from .command import EvaluationOptions, PlotOption, SheetOption, measure_sets, run_command
from .data_sets import DataSet
from .figures.charts import write_bars
from .figures.result_table import Column, show_figures
from .figures.sheets import Gallery, MaskCase, write_sheet

__all__ = ["PointsOptions", "main"]

_BARS = {"iou@1": "1 click", "oracle@1": "oracle", "iou@3": "3 clicks", "box": "box"}


@dataclass(frozen=True, kw_only=True)
class PointsOptions(ClickConfig, SheetOption, PlotOption, EvaluationOptions):
    """Measure clicks and boxes.

    mIoU at 1, 2, 3, 5, 9 clicks by the paper's centre protocol, oracle of the three masks, number
    of clicks to IoU 0.85 and 0.90 (NoC), and mIoU of the true box. Every object of every photo
    counts, but for those marked 'ignore'.
    """


def _show(sets: Sequence[dict[str, Any]], options: PointsOptions) -> None:
    clicks = [Column(f"IoU@{n}", f"means/iou@{n}") for n in options.shown()]
    clicks.insert(1, Column("95%", f"intervals/iou@{options.shown()[0]}"))
    nocs = [
        Column(f"NoC@{level * 100:.0f}", f"means/noc@{level:.2f}", 2) for level in options.levels
    ]
    columns = [
        Column("set", "name"),
        Column("photos", "photos"),
        Column("objects", "objects"),
        *clicks,
        Column("oracle", "means/oracle@1"),
        *nocs,
        Column("box", "means/box"),
        Column("s/photo", "seconds_per_photo", 2),
    ]
    notes = [
        "IoU@n: mIoU over objects after n clicks; oracle: best of three masks at 1 click; "
        "NoC@q: clicks to IoU q%; box: the true box; 95%: of IoU@1, bootstrap over photos."
    ]
    for row in sets:
        left_out = [f"{count} {why}" for why, count in row["skipped"].items() if count]
        if left_out:
            notes.append(f"{row['name']}: left out {', '.join(left_out)}")
    title = f"{options.sampling.capitalize()} clicks and boxes, model {options.model}"
    title += f" (NoC of at most {options.clicks})"
    show_figures(title, columns, sets, notes=notes)


def _run(options: PointsOptions) -> None:
    galleries: dict[str, Gallery[MaskCase]] = {}

    def measure(model: Any, data: DataSet) -> dict[str, Any]:
        gallery = None
        if options.sheet is not None:
            gallery = galleries[data.name] = Gallery(figure="IoU after one click")
        figures = measure_clicks(model, data, config=options, gallery=gallery)
        write_sheet(options.sheet, galleries)
        return figures

    measured = measure_sets(options, measure)
    _show(measured, options)
    panels = {
        row["name"]: {
            name: row["intervals"][key] for key, name in _BARS.items() if key in row["intervals"]
        }
        for row in measured
    }
    title = f"Clicks and boxes, model {options.model}"
    write_bars(options.plot, panels, title=title, axis="mean IoU")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code (2: the input or the model is at fault)."""
    return run_command(PointsOptions, _run, arguments)


if __name__ == "__main__":
    sys.exit(main())
