"""Fairness: mIoU after 1 and 3 clicks for each group of people, with 95% intervals.

    python -m training.evaluation.fairness people.parquet --plot fairness.png

arXiv 2304.02643, Section 6 and Appendix C: whether masks of people are equally good for groups of
perceived gender, age or skin tone. Groups come with the data: a column `group` of photos, a field
`group` of objects, or COCO's `attributes.group`; "gender=female;age=young" puts an object into two
groups, which are compared within each attribute. Objects without a group are left out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

from .clicks.click_runs import ClickConfig, PointItem, item_scores, measure_clicks
from .clicks.simulated_clicks import iou_after
from .command import EvaluationOptions, PlotOption, measure_sets, run_command
from .data_sets import BadInputError, DataSet
from .figures.charts import write_bars
from .figures.intervals import Interval, mean_interval
from .figures.result_table import Column, show_figures

_CLICKS = (1, 3)  # as in the paper's tables
_FEW = 30  # objects below which an interval says little


@dataclass(frozen=True, kw_only=True)
class FairnessOptions(ClickConfig, PlotOption, EvaluationOptions):
    """Measure mIoU after 1 and 3 clicks for each group that the data names."""

    minimum: ClassVar[Mapping[str, int]] = {"clicks": max(_CLICKS)}

    clicks: int = max(_CLICKS)
    columns: tuple[int, ...] = _CLICKS


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

    def after(clicks: int) -> Callable[[PointItem], float]:
        return lambda item: iou_after(item.iou, clicks)

    return {
        attribute: {
            value: {n: mean_interval(item_scores(group, after(n)), seed=seed) for n in _CLICKS}
            for value, group in sorted(groups.items())
        }
        for attribute, groups in sorted(members.items())
    }


def _measure(model: Any, data: DataSet, *, config: ClickConfig) -> dict[str, Any]:
    grouped = tuple(
        replace(sample, objects=tuple(o for o in sample.objects if groups_of(o.group)))
        for sample in data.samples
    )
    if not any(sample.objects for sample in grouped):
        raise BadInputError(
            f"{data.name}: no object has a group; give a column `group` (a text for each photo), a "
            'field `group` of each object, or "attributes": {"group": ...} in a COCO file'
        )
    row = measure_clicks(model, replace(data, samples=grouped), config=config)
    return {**row, "groups": group_intervals(row["items"], seed=config.seed)}


def _show(sets: Sequence[dict[str, Any]], *, model: str) -> None:
    rows: list[dict[str, Any]] = []
    notes = []
    for row in sets:
        for attribute, groups in row["groups"].items():
            kind = attribute or "group"
            for value, figures in groups.items():
                after = {f"after {n}": figures[n] for n in _CLICKS}
                rows.append({"name": row["name"], "attribute": kind, "value": value, **after})
                if figures[1].objects < _FEW:
                    notes.append(f"{value}: {figures[1].objects} objects are few")
            for n in _CLICKS:
                best = max(groups, key=lambda value: groups[value][n].mean)
                worst = min(groups, key=lambda value: groups[value][n].mean)
                gap = groups[best][n].mean - groups[worst][n].mean
                apart = groups[worst][n].high < groups[best][n].low
                notes.append(
                    f"{row['name']}, {kind}, {n} click(s): {best} over {worst} by {gap:.3f}; "
                    f"their intervals {'do not overlap' if apart else 'overlap'}"
                )
    columns = [Column(name, name) for name in ("name", "attribute", "value")]
    columns.append(Column("objects", "after 1/objects"))
    for n in _CLICKS:
        columns += [Column(f"IoU@{n}", f"after {n}/mean"), Column("95%", f"after {n}")]
    show_figures(f"Fairness, model {model}", columns, rows, notes=notes)


def _run(options: FairnessOptions) -> None:
    measured = measure_sets(options, lambda model, data: _measure(model, data, config=options))
    _show(measured, model=options.model)
    panels = {
        f"{attribute or 'group'}: {value}": {f"{n} click(s)": figures[n] for n in _CLICKS}
        for row in measured
        for attribute, groups in row["groups"].items()
        for value, figures in groups.items()
    }
    write_bars(options.plot, panels, title=f"Fairness, model {options.model}", axis="mean IoU")


main = partial(run_command, FairnessOptions, _run)

if __name__ == "__main__":
    sys.exit(main())
