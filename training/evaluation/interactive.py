"""Interactive segmentation: clicks to reach an IoU (NoC), and the IoU after each click.

    python -m training.evaluation.interactive dev/grabcut.parquet dev/coco_mval.parquet --plot F.png

The field's own protocol (RITM, arXiv 2102.06583, Section 4): up to 20 clicks, each in the middle of
the largest error. Every object is clicked to the end, also when it is right already, so that the
curve is about the same objects everywhere.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from .clicks.click_runs import ClickConfig, measure_clicks
from .command import EvaluationOptions, PlotOption, measure_sets, run_command
from .figures.charts import PlottedCurve, write_curves
from .figures.result_table import Column, show_figures

_SHOWN = (1, 2, 3, 5, 10, 15, 20)


@dataclass(frozen=True, kw_only=True)
class InteractiveOptions(ClickConfig, PlotOption, EvaluationOptions):
    """Measure interactive segmentation: clicks to IoU 0.85 and 0.90 (NoC), IoU after each click."""


def falls_of(means: dict[str, Any], clicks: int) -> list[tuple[int, float]]:
    """Clicks after which the mean IoU is lower than before, and by how much."""
    curve = [means[f"iou@{n}"] for n in range(1, clicks + 1)]
    steps = zip(range(2, clicks + 1), curve, curve[1:], strict=False)
    return [(n, before - after) for n, before, after in steps if after < before]


def _show(sets: Sequence[dict[str, Any]], options: InteractiveOptions) -> None:
    columns = [Column("set", "name"), Column("objects", "objects")]
    for level in options.levels:
        columns += [
            Column(f"NoC@{level * 100:.0f}", f"means/noc@{level:.2f}", 2),
            Column("95%", f"intervals/noc@{level:.2f}", 2),
            Column("failed", f"means/noc failed@{level:.2f}"),
        ]
    columns += [Column(f"IoU@{n}", f"means/iou@{n}") for n in _SHOWN if n <= options.clicks]
    notes = []
    for row in sets:
        if not row["objects"]:
            continue
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
    show_figures(title, columns, sets, notes=notes)


def _run(options: InteractiveOptions) -> None:
    # A column for every click: so no object is settled before the last one.
    options = replace(options, columns=tuple(range(1, options.clicks + 1)))
    measured = measure_sets(
        options, lambda model, data: measure_clicks(model, data, config=options)
    )
    _show(measured, options)
    curves = [
        PlottedCurve(
            name=row["name"],
            x=options.shown(),
            y=[row["means"][f"iou@{n}"] for n in options.shown()],
        )
        for row in measured
        if row["objects"]
    ]
    title = f"IoU after each click, model {options.model}"
    write_curves(options.plot, curves, title=title, axes_names=("clicks", "mean IoU"))


main = partial(run_command, InteractiveOptions, _run)

if __name__ == "__main__":
    sys.exit(main())
