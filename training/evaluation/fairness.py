"""Fairness: mIoU after 1 and 3 clicks for each group of people, with 95% intervals.

    python -m training.evaluation.fairness people.parquet --plot fairness.png

arXiv 2304.02643, Section 6 and Appendix C: whether masks of people are equally good for groups of
perceived gender, age or skin tone. Groups come with the data: a column `group` of photos, a field
`group` of objects, or COCO's `attributes.group`; "gender=female;age=young" puts an object into two
groups, which are compared within each attribute. Objects without a group are left out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from textsam.errors import TextSamError

from .clicks.click_options import add_click_options, click_config
from .clicks.clicking import ClickConfig, PointItem, item_interval, measure_set
from .clicks.protocol import iou_after
from .figures.bootstrap import Interval
from .figures.charts import add_plot_option, write_bars
from .table import (
    BadInputError,
    DataSet,
    add_common_options,
    complain,
    measure_files,
    number,
    show_table,
)

__all__ = ["group_intervals", "groups_of", "main"]

_CLICKS = (1, 3)  # as the paper's tables
_FEW = 30  # objects below which an interval says little


def groups_of(text: str) -> list[tuple[str, str]]:
    """(attribute, value) pairs of "gender=female;age=young"; "female" alone has no attribute."""
    pairs = []
    for part in text.split(";"):
        attribute, equals, value = part.strip().rpartition("=")
        if value.strip():
            pairs.append((attribute.strip() if equals else "", value.strip()))
    return pairs


def group_intervals(
    items: Sequence[PointItem], *, seed: int = 0
) -> dict[str, dict[str, dict[int, Interval]]]:
    """MIoU by attribute, value and number of clicks, sorted by name."""
    members: dict[str, dict[str, list[PointItem]]] = {}
    for item in items:
        for attribute, value in groups_of(item.group):
            members.setdefault(attribute, {}).setdefault(value, []).append(item)
    return {
        attribute: {
            value: {n: _interval(group, n, seed=seed) for n in _CLICKS}
            for value, group in sorted(groups.items())
        }
        for attribute, groups in sorted(members.items())
    }


def _interval(items: Sequence[PointItem], clicks: int, *, seed: int) -> Interval:
    return item_interval(items, lambda item: iou_after(item.iou, clicks), seed=seed)


def _measure(model: Any, data: DataSet, *, config: ClickConfig) -> dict[str, Any]:
    named = tuple(
        replace(sample, objects=tuple(o for o in sample.objects if groups_of(o.group)))
        for sample in data.samples
    )
    if not any(sample.objects for sample in named):
        raise BadInputError(
            f"{data.name}: no object has a group; give a column `group` (a text for each photo), a "
            'field `group` of each object, or "attributes": {"group": ...} in a COCO file'
        )
    row = measure_set(model, replace(data, samples=named), config=config)
    groups = group_intervals([PointItem(**item) for item in row["items"]], seed=config.seed)
    return {**row, "groups": groups}


def _show(sets: Sequence[dict[str, Any]], *, model: str) -> None:
    rows, notes = [], []
    for row in sets:
        for attribute, groups in row["groups"].items():
            for value, figures in groups.items():
                cells = [row["name"], attribute or "group", value, str(figures[1].objects)]
                for n in _CLICKS:
                    half = (figures[n].high - figures[n].low) / 2
                    cells += [number(figures[n].mean), f"+-{half:.3f}"]
                rows.append(cells)
                if figures[1].objects < _FEW:
                    notes.append(f"{value}: {figures[1].objects} objects are few")
            for n in _CLICKS:
                best = max(groups, key=lambda value: groups[value][n].mean)
                worst = min(groups, key=lambda value: groups[value][n].mean)
                gap = groups[best][n].mean - groups[worst][n].mean
                apart = groups[worst][n].high < groups[best][n].low
                notes.append(
                    f"{row['name']}, {attribute or 'group'}, {n} click(s): {best} over {worst} by "
                    f"{gap:.3f}; their intervals {'do not overlap' if apart else 'overlap'}"
                )
    columns = ["set", "attribute", "value", "objects"]
    for n in _CLICKS:
        columns += [f"IoU@{n}", "95%"]
    show_table(f"Fairness, model {model}", columns, rows, notes=notes)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code (2: the input or the model is at fault)."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}.fairness",
        description="Measure mIoU after 1 and 3 clicks for each group that the data names.",
    )
    add_common_options(parser)
    add_click_options(parser, clicks=max(_CLICKS))
    add_plot_option(parser, "a bar a group")
    options = parser.parse_args(arguments)
    if options.clicks < max(_CLICKS):
        parser.error(f"--clicks {options.clicks}: wanted at least {max(_CLICKS)}")
    config = click_config(options, columns=_CLICKS)
    try:
        measured = measure_files(
            options,
            lambda model, data: _measure(model, data, config=config),
            protocol=asdict(config),
        )
    except (BadInputError, TextSamError) as error:
        return complain(parser, error)
    _show(measured, model=options.model)
    if options.plot is not None:
        panels = {
            f"{attribute or 'group'}: {value}": {f"{n} click(s)": figures[n] for n in _CLICKS}
            for row in measured
            for attribute, groups in row["groups"].items()
            for value, figures in groups.items()
        }
        write_bars(options.plot, panels, title=f"Fairness, model {options.model}", axis="mean IoU")
    return 0


if __name__ == "__main__":
    sys.exit(main())
