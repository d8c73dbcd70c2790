"""Interactive segmentation: clicks to reach an IoU (NoC), and the IoU after each click.

    python -m training.evaluation.interactive dev/grabcut.parquet dev/coco_mval.parquet --plot F.png

The field's own protocol (RITM, arXiv 2102.06583, Section 4): up to 20 clicks, each in the middle of
the largest error. Every object is clicked to the end, also when it is right already, so that the
curve is about the same objects everywhere.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from textsam.errors import TextSamError

from .clicks.click_options import add_click_options, click_config, shown_interval
from .clicks.clicking import ClickConfig, measure_set
from .figures.charts import Curve, add_plot_option, write_curves
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

__all__ = ["falls_of", "main"]

_SHOWN = (1, 2, 3, 5, 10, 15, 20)


def falls_of(means: dict[str, Any], config: ClickConfig) -> list[tuple[int, float]]:
    """Clicks after which the mean IoU is lower than before, and by how much."""
    curve = [means[f"iou@{n}"] for n in config.shown()]
    steps = zip(config.shown()[1:], curve, curve[1:], strict=False)
    return [(n, before - after) for n, before, after in steps if after < before]


def _show(sets: Sequence[dict[str, Any]], *, model: str, config: ClickConfig) -> None:
    shown = [n for n in _SHOWN if n <= config.clicks]
    levels = [f"{level:.2f}" for level in config.levels]
    columns = ["set", "objects"]
    for level in levels:
        columns += [f"NoC@{float(level) * 100:.0f}", "95%", "failed"]
    rows, notes = [], []
    for row in sets:
        means = row["means"]
        cells = [row["name"], str(row["objects"])]
        for level in levels:
            cells += [
                number(means[f"noc@{level}"], digits=2),
                shown_interval(row["intervals"], f"noc@{level}", digits=2),
                number(means[f"noc failed@{level}"]),
            ]
        rows.append([*cells, *numbers(means, [f"iou@{n}" for n in shown])])
        if row["objects"]:
            falls = falls_of(means, config)
            told = ", ".join(f"click {n} by {fall:.4f}" for n, fall in falls)
            notes.append(
                f"{row['name']}: the mean falls at {told}"
                if falls
                else f"{row['name']}: every further click raises the mean IoU, or leaves it"
            )
    notes.append(
        f"NoC@q: clicks to IoU q%, at most {config.clicks}, failures counted as that; 95%: "
        "bootstrap over photos; IoU@n: mIoU after n clicks"
    )
    title = f"Interactive segmentation, {config.sampling} clicks, model {model}"
    show_table(title, [*columns, *(f"IoU@{n}" for n in shown)], rows, notes=notes)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code (2: the input or the model is at fault)."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}.interactive",
        description="Measure interactive segmentation: number of clicks to IoU 0.85 and 0.90 (NoC) "
        "and the mean IoU after each click.",
    )
    add_common_options(parser)
    add_click_options(parser)
    add_plot_option(parser, "the mean IoU after each click, a line a set")
    options = parser.parse_args(arguments)
    config = click_config(options, columns=tuple(range(1, options.clicks + 1)))

    def measure(model: Any, data: DataSet) -> dict[str, Any]:
        return measure_set(model, data, config=config)

    try:
        measured = measure_files(options, measure, protocol=asdict(config))
    except (BadInputError, TextSamError) as error:
        return complain(parser, error)
    _show(measured, model=options.model, config=config)
    curves = [
        Curve(
            name=row["name"],
            x=config.shown(),
            y=[row["means"][f"iou@{n}"] for n in config.shown()],
        )
        for row in measured
        if row["objects"]
    ]
    if options.plot is not None and curves:
        title = f"IoU after each click, model {options.model}"
        write_curves(options.plot, curves, title=title, axes_names=("clicks", "mean IoU"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
