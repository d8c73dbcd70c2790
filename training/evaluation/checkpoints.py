"""Several checkpoints on the same objects, side by side.

    python -m training.evaluation.checkpoints dev/grabcut.parquet --models runs/a runs/b tiny

arXiv 2304.02643, Section 7.6 and Figure 13: stages of the data engine, share of the data, size of
the encoder; here any models. Differences are from the first one, object by object, so that the
interval of a difference is narrower than those of the two figures. `training.studies.ablation`
trains small variants and compares those.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from .clicks.click_runs import ClickConfig, PointItem, item_scores, measure_clicks
from .clicks.simulated_clicks import iou_after
from .command import EvaluationOptions, PlotOption, load_model, run_command, write_report
from .data_sets import BadInputError, read_sets
from .figures.charts import write_bars
from .figures.intervals import Interval, paired_interval
from .figures.result_table import Column, show_figures

__all__ = ["CheckpointOptions", "differences", "main"]

_FIGURES: dict[str, Callable[[PointItem], float]] = {
    "iou@1": lambda item: iou_after(item.iou, 1),
    "iou@3": lambda item: iou_after(item.iou, 3),
    "oracle@1": lambda item: item.oracle,
    "box": lambda item: item.box,
}


@dataclass(frozen=True, kw_only=True)
class CheckpointOptions(ClickConfig, PlotOption, EvaluationOptions):
    """Measure several models on the same objects: clicks, oracle, box; differences from the first.

    Attributes:
        models: What TextSAM.from_pretrained takes, in the order of the table.
    """

    minimum: ClassVar[Mapping[str, int]] = {"clicks": 3}

    models: tuple[str, ...] = ("tiny",)
    clicks: int = 9

    def check(self) -> None:
        """Also refuse a model that is named twice."""
        super().check()
        if len(set(self.models)) < len(self.models):
            raise BadInputError(f"--models {' '.join(self.models)}: one is named twice")


def differences(
    items: Sequence[PointItem], reference: Sequence[PointItem], *, seed: int = 0
) -> dict[str, Interval]:
    """Mean differences of each figure, object by object, with 95% intervals over photos.

    Raises:
        ValueError: The two are not about the same objects.
    """
    return {
        name: paired_interval(item_scores(items, of), item_scores(reference, of), seed=seed)
        for name, of in _FIGURES.items()
    }


def _show(measured: Sequence[dict[str, Any]]) -> None:
    def difference(name: str) -> Callable[[dict[str, Any]], str]:
        def text(row: dict[str, Any]) -> str:
            change = row.get("differences", {}).get(name)
            if change is None:
                return ""
            return f"{change.mean:+.3f}{'*' if change.is_clear_of_zero else ''}"

        return text

    columns = [Column("set", "name"), Column("model", "model"), Column("objects", "objects")]
    for name in _FIGURES:
        columns += [
            Column(name.replace("iou", "IoU"), f"means/{name}"),
            Column("95%", f"intervals/{name}"),
            Column("against first", difference(name)),
        ]
    rows = sorted(measured, key=lambda row: row["name"])
    notes = ["*: the 95% interval of the difference (bootstrap over photos) leaves out zero"]
    show_figures("Checkpoints side by side", columns, rows, notes=notes, width=180)


def _run(options: CheckpointOptions) -> None:
    sets = read_sets(options.data, limit=options.limit)
    first: dict[str, list[PointItem]] = {}
    measured: list[dict[str, Any]] = []
    for name in options.models:
        model = load_model(name)
        for data in sets:
            row: dict[str, Any] = {"model": name, "name": data.name, "path": str(data.path)}
            row |= measure_clicks(model, data, config=options)
            items = row["items"]
            reference = first.setdefault(data.name, items)
            if reference is not items and items:
                row["differences"] = differences(items, reference, seed=options.seed)
            measured.append(row)
            write_report(options, measured)
    _show(measured)
    panels: dict[str, dict[str, Interval]] = {}
    for row in measured:
        if row["intervals"]:
            bars = panels.setdefault(f"{row['name']}, 1 click", {})
            bars[row["model"]] = row["intervals"]["iou@1"]
    write_bars(options.plot, panels, title="Checkpoints side by side", axis="mean IoU")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code (2: the input or a model is at fault)."""
    return run_command(CheckpointOptions, _run, arguments)


if __name__ == "__main__":
    sys.exit(main())
