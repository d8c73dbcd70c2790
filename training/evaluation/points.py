"""Clicks and boxes on any number of sets: mIoU after n clicks, oracle of three, NoC, box mIoU.

    python -m training.evaluation.points dev/grabcut.parquet dev/coco_mval.parquet --json F.json

The paper's protocol of 23 sets (arXiv 2304.02643, Section 7.1 and Appendix D.1), as `clicking` has
it; `--sampling random` is its variant with random points.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from textsam.errors import TextSamError

from .clicks.click_options import add_click_options, click_config, shown_interval
from .clicks.clicking import ClickConfig, measure_set
from .figures.bootstrap import Interval
from .figures.charts import add_plot_option, write_bars
from .figures.sheet import Gallery, add_sheet_option, write_sheet
from .table import (
    BadInputError,
    DataSet,
    add_common_options,
    complain,
    measure_files,
    number,
    numbers,
    show_table,
)

__all__ = ["main"]


def _show(sets: Sequence[dict[str, Any]], *, model: str, config: ClickConfig) -> None:
    clicks = [f"IoU@{n}" for n in config.shown()]
    nocs = [f"NoC@{level * 100:.0f}" for level in config.levels]
    columns = ["set", "photos", "objects", *clicks, "oracle", *nocs, "box", "s/photo"]
    columns.insert(4, "95%")
    rows = []
    for row in sets:
        means = row["means"]
        rows.append(
            [
                row["name"],
                str(row["photos"]),
                str(row["objects"]),
                number(means["iou@1"]),
                shown_interval(row["intervals"], "iou@1"),
                *numbers(means, [f"iou@{n}" for n in config.shown()[1:]]),
                number(means["oracle@1"]),
                *numbers(means, [f"noc@{level:.2f}" for level in config.levels], digits=2),
                number(means["box"]),
                number(row["seconds_per_photo"], digits=2),
            ]
        )
    notes = [
        "IoU@n: mIoU over objects after n clicks; oracle: best of three readings at 1 click; "
        "NoC@q: clicks to IoU q%; box: the true box; 95%: of IoU@1, bootstrap over photos."
    ]
    for row in sets:
        left_out = [f"{count} {why}" for why, count in row["skipped"].items() if count]
        if left_out:
            notes.append(f"{row['name']}: left out {', '.join(left_out)}")
    title = f"{config.sampling.capitalize()} clicks and boxes, model {model}"
    title += f" (NoC of at most {config.clicks})"
    show_table(title, columns, rows, notes=notes)


def _plot(sets: Sequence[dict[str, Any]], path: Path, *, model: str) -> None:
    names = {"iou@1": "1 click", "oracle@1": "oracle", "iou@3": "3 clicks", "box": "box"}
    panels = {
        row["name"]: {
            shown: Interval(*row["intervals"][key])
            for key, shown in names.items()
            if key in row["intervals"]
        }
        for row in sets
        if row["intervals"]
    }
    if panels:
        write_bars(path, panels, title=f"Clicks and boxes, model {model}", axis="mean IoU")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}.points",
        description="Measure clicks and boxes: mIoU at 1, 2, 3, 5, 9 clicks by the paper's centre "
        "protocol, oracle of the three readings, number of clicks to IoU 0.85 and 0.90 (NoC), and "
        "mIoU of the true box. Every object of every photo counts, but for those marked 'ignore'.",
    )
    add_common_options(parser)
    add_click_options(parser)
    add_sheet_option(parser, "IoU after one click")
    add_plot_option(parser, "one bar a set for 1 and 3 clicks, oracle and box")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code (2: the input or the model is at fault)."""
    parser = _parser()
    options = parser.parse_args(arguments)
    config = click_config(options)
    galleries: dict[str, Gallery] = {}

    def measure(model: Any, data: DataSet) -> dict[str, Any]:
        gallery = galleries.setdefault(data.name, Gallery()) if options.sheet else None
        result = measure_set(model, data, config=config, gallery=gallery)
        write_sheet(options.sheet, galleries, figure="IoU after one click")
        return result

    try:
        measured = measure_files(options, measure, protocol=asdict(config))
    except (BadInputError, TextSamError) as error:
        return complain(parser, error)
    _show(measured, model=options.model, config=config)
    if options.plot is not None:
        _plot(measured, options.plot, model=options.model)
    return 0


if __name__ == "__main__":
    sys.exit(main())
