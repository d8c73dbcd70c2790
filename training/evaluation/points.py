"""Clicks and boxes on any number of sets: mIoU after n clicks, oracle of three, NoC, box mIoU.

    python -m training.evaluation.points dev/grabcut.parquet dev/coco_mval.parquet --json F.json
    python -m training.evaluation.points dev/grabcut.parquet --compare runs/a runs/b
    python -m training.evaluation.points dev/grabcut.parquet --interactive --plot curve.png

The paper's protocol of 23 sets (arXiv 2304.02643, Section 7.1 and Appendix D.1), see
`clicks/click_runs.py`; `--sampling random` is its variant with random points. `--compare` measures
checkpoints on the same objects, as the paper's ablations do (Section 7.6 and Figure 13).
`--interactive` is the field's own protocol (RITM, arXiv 2102.06583, Section 4): up to 20 clicks,
each in the middle of the largest error. Every object is clicked to the end, also when it is right
already, so that the curve is about the same objects everywhere.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from .figures.case_sheets import Gallery, write_sheet
from .figures.charts import PlottedCurve, write_bars, write_curves
from .figures.intervals import Interval, paired_interval
from .figures.result_table import Column, columns_of, left_out_notes, show_figures

# What is drawn, and compared between models: heading, and figure of an object.
_FIGURES: dict[str, tuple[str, Callable[[PointItem], float]]] = {
    "iou@1": ("1 click", lambda item: iou_after(item.iou, 1)),
    "oracle@1": ("oracle", lambda item: item.oracle),
    "iou@3": ("3 clicks", lambda item: iou_after(item.iou, 3)),
    "box": ("box", lambda item: item.box),
}
_CURVE_COLUMNS = (1, 2, 3, 5, 10, 15, 20)  # of the table with --interactive


@dataclass(frozen=True, kw_only=True)
class PointsOptions(ClickConfig, SheetOption, PlotOption, EvaluationOptions):
    """Measure clicks and boxes.

    mIoU at 1, 2, 3, 5, 9 clicks by the paper's centre protocol, oracle of the three masks, number
    of clicks to IoU 0.85 and 0.90 (NoC), and mIoU of the true box. Every object of every photo
    counts, but for those marked 'ignore'.
    """

    compare: tuple[str, ...] = ()  # Further models, and their differences from --model
    # Click every object to the end: NoC with intervals and failures, and IoU after each click.
    interactive: bool = False

    def check(self) -> None:
        """Also refuse a model that is named twice."""
        super().check()
        models = (self.model, *self.compare)
        if len(set(models)) < len(models):
            raise BadInputError(f"--compare {' '.join(self.compare)}: a model is named twice")

    def model_column(self) -> list[Column]:
        """The models' names, if there are several."""
        return [Column("model", "model")] if self.compare else []


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
        *options.model_column(),
        Column("photos", "photos"),
        Column("objects", "objects"),
        *clicks,
        Column("oracle", "means/oracle@1"),
        *nocs,
        Column("box", "means/box"),
        Column("border", "means/box boundary"),
        Column("s/photo", "seconds_per_photo", 2),
    ]
    notes = [
        "IoU@n: mIoU over objects after n clicks; oracle: best of three masks at 1 click; "
        "NoC@q: clicks to IoU q%; box: the true box; border: boundary IoU of its mask; "
        "95%: of IoU@1, bootstrap over photos."
    ]
    notes += left_out_notes(rows)
    title = f"{options.sampling.capitalize()} clicks and boxes, model {options.model}"
    title += f" (NoC of at most {options.clicks})"
    show_figures(title, columns, rows, notes=notes, width=160)


def falls_of(means: Mapping[str, Any], clicks: int) -> list[tuple[int, float]]:
    """Clicks after which the mean IoU is lower than before, and by how much."""
    curve = [means[f"iou@{n}"] for n in range(1, clicks + 1)]
    steps = zip(range(2, clicks + 1), curve, curve[1:], strict=False)
    return [(n, before - after) for n, before, after in steps if after < before]


def _show_curves(rows: Sequence[dict[str, Any]], options: PointsOptions) -> None:
    columns = [Column("set", "name"), *options.model_column(), Column("objects", "objects")]
    for level in options.levels:
        columns += [
            Column(f"NoC@{level * 100:.0f}", f"means/noc@{level:.2f}", 2),
            Column("95%", f"intervals/noc@{level:.2f}", 2),
            Column("failed", f"means/noc failed@{level:.2f}"),
        ]
    shown = [n for n in _CURVE_COLUMNS if n <= options.clicks]
    columns += columns_of("means", {f"IoU@{n}": f"iou@{n}" for n in shown})
    notes = []
    for row in rows:
        if row["objects"]:
            falls = falls_of(row["means"], options.clicks)
            places = ", ".join(f"click {n} by {fall:.4f}" for n, fall in falls)
            notes.append(
                f"{row['name']}: the mean falls at {places}"
                if falls
                else f"{row['name']}: every further click raises the mean IoU, or leaves it"
            )
    notes.append(
        f"NoC@q: clicks to IoU q%, at most {options.clicks}, failures counted as that; 95%: "
        "bootstrap over photos; IoU@n: mIoU after n clicks"
    )
    title = f"Interactive segmentation, {options.sampling} clicks, model {options.model}"
    show_figures(title, columns, rows, notes=notes)


def _show_differences(rows: Sequence[dict[str, Any]], options: PointsOptions) -> None:
    columns = [Column("set", "name"), Column("model", "model")]
    for key, (heading, _) in _FIGURES.items():
        path = f"differences/{key}"
        columns += [Column(heading, f"{path}/signed_mean"), Column("95%", path)]
    compared = [row for row in rows if "differences" in row]
    notes = ["*: the 95% interval of the difference (bootstrap over photos) leaves out zero"]
    show_figures(f"Differences from {options.model}", columns, compared, notes=notes)


def _plot(rows: Sequence[dict[str, Any]], options: PointsOptions) -> None:
    names = [f"{r['name']}, {r['model']}" if options.compare else r["name"] for r in rows]
    named = [(name, row) for name, row in zip(names, rows, strict=True) if row["objects"]]
    if options.interactive:
        clicks = options.shown()
        curves = [
            PlottedCurve(name=name, x=clicks, y=[row["means"][f"iou@{n}"] for n in clicks])
            for name, row in named
        ]
        title = f"IoU after each click, model {options.model}"
        write_curves(options.plot, curves, title=title, axes_names=("clicks", "mean IoU"))
        return
    panels = {
        name: {
            heading: row["intervals"][key]
            for key, (heading, _) in _FIGURES.items()
            if key in row["intervals"]
        }
        for name, row in named
    }
    title = f"Clicks and boxes, model {options.model}"
    write_bars(options.plot, panels, title=title, axis="mean IoU")


def _run(options: PointsOptions) -> None:
    if options.interactive:
        # A column for every click: so no object is settled before the last one.
        options = replace(options, columns=tuple(range(1, options.clicks + 1)))
    galleries: dict[str, Gallery] = {}

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
    (_show_curves if options.interactive else _show)(measured, options)
    _show_differences(measured, options)
    _plot(measured, options)


main = partial(run_command, PointsOptions, _run)

if __name__ == "__main__":
    sys.exit(main())
