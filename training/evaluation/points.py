"""Clicks and boxes on any number of sets: mIoU after n clicks, oracle of three, NoC, box mIoU.

    python -m training.evaluation.points dev/grabcut.parquet dev/coco_mval.parquet --json F.json
    python -m training.evaluation.points dev/grabcut.parquet --compare runs/a runs/b

The paper's protocol of 23 sets (arXiv 2304.02643, Section 7.1 and Appendix D.1), see
`clicks/click_runs.py`; `--sampling random` is its variant with random points. `--compare` measures
checkpoints on the same objects, as the paper's ablations do (Section 7.6 and Figure 13).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from .clicks.click_runs import ClickConfig, PointItem, item_scores, measure_clicks
from .clicks.simulated_clicks import iou_after
from .command import (
    EvaluationOptions,
    PlotOption,
    SheetOption,
    measure_sets,
    run_command,
    write_report,
)
from .data_sets import BadInputError, DataSet
from .figures.case_sheets import Gallery, MaskCase, write_sheet
from .figures.charts import write_bars
from .figures.intervals import Interval, paired_interval
from .figures.result_table import Column, show_figures

# What is drawn, and compared between models: heading, and figure of an object.
_FIGURES: dict[str, tuple[str, Callable[[PointItem], float]]] = {
    "iou@1": ("1 click", lambda item: iou_after(item.iou, 1)),
    "oracle@1": ("oracle", lambda item: item.oracle),
    "iou@3": ("3 clicks", lambda item: iou_after(item.iou, 3)),
    "box": ("box", lambda item: item.box),
}


@dataclass(frozen=True, kw_only=True)
class PointsOptions(ClickConfig, SheetOption, PlotOption, EvaluationOptions):
    """Measure clicks and boxes.

    mIoU at 1, 2, 3, 5, 9 clicks by the paper's centre protocol, oracle of the three masks, number
    of clicks to IoU 0.85 and 0.90 (NoC), and mIoU of the true box. Every object of every photo
    counts, but for those marked 'ignore'.
    """

    compare: tuple[str, ...] = ()  # Further models, and their differences from --model

    def check(self) -> None:
        """Also refuse a model that is named twice."""
        super().check()
        models = (self.model, *self.compare)
        if len(set(models)) < len(models):
            raise BadInputError(f"--compare {' '.join(self.compare)}: a model is named twice")


def differences(
    items: Sequence[PointItem], reference: Sequence[PointItem], *, seed: int = 0
) -> dict[str, Interval]:
    """Mean differences of each figure, object by object, with 95% intervals over photos.

    Object by object, so that the interval of a difference is narrower than those of two figures.
    """
    return {
        key: paired_interval(item_scores(items, of), item_scores(reference, of), seed=seed)
        for key, (_, of) in _FIGURES.items()
    }


def _show(rows: Sequence[dict[str, Any]], options: PointsOptions) -> None:
    clicks = [Column(f"IoU@{n}", f"means/iou@{n}") for n in options.shown()]
    clicks.insert(1, Column("95%", f"intervals/iou@{options.shown()[0]}"))
    nocs = [
        Column(f"NoC@{level * 100:.0f}", f"means/noc@{level:.2f}", 2) for level in options.levels
    ]
    columns = [
        Column("set", "name"),
        *([Column("model", "model")] if options.compare else []),
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
    for row in rows:
        left_out = [f"{count} {why}" for why, count in row["skipped"].items() if count]
        if left_out:
            notes.append(f"{row['name']}: left out {', '.join(left_out)}")
    title = f"{options.sampling.capitalize()} clicks and boxes, model {options.model}"
    title += f" (NoC of at most {options.clicks})"
    show_figures(title, columns, rows, notes=notes, width=160)
    columns = [Column("set", "name"), Column("model", "model")]
    for key, (heading, _) in _FIGURES.items():
        path = f"differences/{key}"
        columns += [Column(heading, f"{path}/signed_mean"), Column("95%", path)]
    compared = [row for row in rows if "differences" in row]
    notes = ["*: the 95% interval of the difference (bootstrap over photos) leaves out zero"]
    show_figures(f"Differences from {options.model}", columns, compared, notes=notes)


def _run(options: PointsOptions) -> None:
    galleries: dict[str, Gallery[MaskCase]] = {}

    def measure(model: Any, data: DataSet) -> dict[str, Any]:
        gallery = None
        if options.sheet is not None:
            gallery = galleries.setdefault(data.name, Gallery(figure="IoU after one click"))
        figures = measure_clicks(model, data, config=options, gallery=gallery)
        write_sheet(options.sheet, galleries)
        return figures

    measured = measure_sets(options, measure)
    first = {row["name"]: row["items"] for row in measured if row["model"] == options.model}
    for row in measured:
        reference = first[row["name"]]
        if row["items"] is not reference and reference:
            row["differences"] = differences(row["items"], reference, seed=options.seed)
    write_report(options, measured)
    _show(measured, options)
    panels = {
        f"{row['name']}, {row['model']}" if options.compare else row["name"]: {
            heading: row["intervals"][key]
            for key, (heading, _) in _FIGURES.items()
            if key in row["intervals"]
        }
        for row in measured
    }
    title = f"Clicks and boxes, model {options.model}"
    write_bars(options.plot, panels, title=title, axis="mean IoU")


main = partial(run_command, PointsOptions, _run)

if __name__ == "__main__":
    sys.exit(main())
