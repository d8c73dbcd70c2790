"""Ablations: several checkpoints on the same objects, side by side.

    python -m training.evaluation.checkpoints dev/grabcut.parquet --models runs/a runs/b tiny

arXiv 2304.02643, Section 7.6 and Figure 13: stages of the data engine, share of the data, size of
the encoder; here any models. Differences are from the first one, object by object, so that an
interval of a difference is narrower than those of the two figures. `training.studies.ablation`
trains small variants and compares those.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from textsam.errors import TextSamError

from .clicks.click_options import add_click_options, click_config, shown_interval
from .clicks.clicking import PointItem, measure_set
from .clicks.protocol import iou_after
from .figures.bootstrap import Interval, Score, paired_interval
from .figures.charts import add_plot_option, write_bars
from .sets import read_sets
from .table import (
    BadInputError,
    add_common_options,
    check_output,
    complain,
    load_model,
    number,
    show_table,
    write_report,
)

__all__ = ["differences", "main"]

_FIGURES: dict[str, Callable[[PointItem], float]] = {
    "iou@1": lambda item: iou_after(item.iou, 1),
    "iou@3": lambda item: iou_after(item.iou, 3),
    "oracle@1": lambda item: item.oracle,
    "box": lambda item: item.box,
}


def differences(
    items: Sequence[PointItem], reference: Sequence[PointItem], *, seed: int = 0
) -> dict[str, Interval]:
    """Mean differences of each figure, object by object, with 95% intervals over photos.

    Raises:
        ValueError: The two are not about the same objects.
    """
    return {
        name: paired_interval(_scores(items, of), _scores(reference, of), seed=seed)
        for name, of in _FIGURES.items()
    }


def _scores(items: Sequence[PointItem], of: Callable[[PointItem], float]) -> list[Score]:
    return [Score(photo=i.image_id, object=str(i.object), value=of(i)) for i in items]


def _measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    check_output(options.json, "--json")
    check_output(options.plot, "--plot")
    if len(set(options.models)) < len(options.models):
        raise BadInputError(f"--models {' '.join(options.models)}: one is named twice")
    config = click_config(options)
    sets = read_sets(options.data, limit=options.limit)
    first: dict[str, list[PointItem]] = {}
    measured: list[dict[str, Any]] = []
    for name in options.models:
        model = load_model(name)
        for data in sets:
            row: dict[str, Any] = {"model": name, **measure_set(model, data, config=config)}
            items = [PointItem(**item) for item in row["items"]]
            before = first.setdefault(data.name, items)
            if before is not items and items:
                row["differences"] = differences(items, before, seed=config.seed)
            measured.append(row)
            settings = {**vars(options), "protocol": asdict(config)}
            write_report(options.json, settings=settings, sets=measured)
    return measured


def _show(measured: Sequence[dict[str, Any]]) -> None:
    columns = ["set", "model", "objects"]
    for name in _FIGURES:
        columns += [name.replace("iou", "IoU"), "95%", "against first"]
    rows = []
    for row in sorted(measured, key=lambda row: row["name"]):
        cells = [row["name"], row["model"], str(row["objects"])]
        for name in _FIGURES:
            cells += [number(row["means"][name]), shown_interval(row["intervals"], name)]
            change = row.get("differences", {}).get(name)
            mark = "*" if change is not None and change.is_clear_of_zero else ""
            cells.append("" if change is None else f"{change.mean:+.3f}{mark}")
        rows.append(cells)
    notes = ["*: the 95% interval of the difference (bootstrap over photos) leaves out zero"]
    show_table("Checkpoints side by side", columns, rows, notes=notes, width=180)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code (2: the input or a model is at fault)."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}.checkpoints",
        description="Measure several models on the same objects: clicks, oracle, box, and how they "
        "differ from the first.",
    )
    add_common_options(parser, models=True)
    add_click_options(parser, clicks=9)
    add_plot_option(parser, "the models' bars for each set")
    options = parser.parse_args(arguments)
    if options.clicks < 3:
        parser.error(f"--clicks {options.clicks}: wanted at least 3")
    try:
        measured = _measure(options)
    except (BadInputError, TextSamError) as error:
        return complain(parser, error)
    _show(measured)
    panels: dict[str, dict[str, Interval]] = {}
    for row in measured:
        if row["intervals"]:
            bars = panels.setdefault(f"{row['name']}, 1 click", {})
            bars[row["model"]] = Interval(*row["intervals"]["iou@1"])
    if options.plot is not None and panels:
        write_bars(options.plot, panels, title="Checkpoints side by side", axis="mean IoU")
    return 0


if __name__ == "__main__":
    sys.exit(main())
