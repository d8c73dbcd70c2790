"""What the command line shows: tables for a terminal, made with rich."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from textsam.batch.folders import BatchReport
from textsam.cli.doctor import Finding
from textsam.results.explanation import Explanation
from textsam.results.segmentation import Segmentation
from textsam.weights.info import KNOWN_MODELS, ModelInfo, find_model

__all__ = [
    "batch_table",
    "explanation_table",
    "findings_table",
    "known_models_table",
    "model_table",
    "result_table",
]

# A terminal page; automatic masks can be hundreds.
_MOST_ROWS = 40


def result_table(result: Segmentation) -> Table:
    """A row per mask: label, score, IoU, box, area."""
    table = _table("label", "score", "iou", "box x0 y0 x1 y1", "area")
    for column in table.columns[1:]:
        column.justify = "right"
    pixels = result.size[0] * result.size[1]
    for item in result[:_MOST_ROWS]:
        table.add_row(
            escape(item.label or "-"),
            _share(item.score),
            _share(item.iou),
            " ".join(f"{side:.0f}" for side in item.box),
            f"{item.area:,} px ({item.area / pixels:.1%})",
        )
    if len(result) > _MOST_ROWS:
        table.caption = f"and {len(result) - _MOST_ROWS} more"
    return table


def batch_table(report: BatchReport) -> Table:
    """A row per label: in how many photos, how many masks."""
    table = _table("label", "photos", "masks")
    for column in table.columns[1:]:
        column.justify = "right"
    for label, masks in report.masks.items():
        photos = sum(label in photo.masks for photo in report.photos)
        table.add_row(escape(label or "-"), str(photos), str(masks))
    return table


def explanation_table(explanation: Explanation) -> Table:
    """A row per phrase and per mask that was considered, and what closed on it."""
    table = _table("phrase", "score", "gate", "evidence", "why")
    table.columns[1].justify = "right"
    rows = explanation.short_table()
    for index, row in enumerate(rows):
        if index and row.mask is None:
            table.add_section()
        phrase, what, score, gate, reason, evidence = row.cells()
        table.add_row(
            escape(phrase) if row.mask is None else f"  {what}",
            score,
            f"[{'green' if row.gate is None else 'yellow'}]{gate}[/]",
            escape(evidence),
            escape(reason),
        )
    if left_out := len(explanation.table()) - len(rows):
        table.caption = f"and {left_out} more; a .json file has them all"
    return table


def known_models_table() -> Table:
    """A row per model that can be named."""
    table = _table("model", "architecture", "parameters", "size", "licence")
    for model in KNOWN_MODELS:
        count = "-" if math.isnan(model.parameters) else f"{model.parameters:.1f} M"
        here = find_model(model.name)
        table.add_row(
            f"[green]{model.name} *[/green]" if here else model.name,
            model.architecture,
            count,
            f"{'<= ' if model.shipped else ''}{model.megabytes} MB",
            model.license,
        )
    table.caption = "* on this machine. Any folder or hub id of a SAM works too."
    return table


def model_table(info: ModelInfo) -> Table:
    """What the files of one model tell, line by line."""
    table = _table("", "", header=False)
    table.add_row("model", escape(info.name))
    table.add_row("folder", escape(str(info.folder)))
    table.add_row("licence", escape(info.license or "not stated in its files"))
    if info.parameters:
        table.add_row("parameters", f"{info.parameters:,}")
    for file in info.files:
        dtypes = f", {' '.join(file.dtypes)}" if file.dtypes else ", not opened (no safetensors)"
        name = file.path.name
        table.add_row(escape(name), f"{file.size / 1e6:,.1f} MB{dtypes}")
        for part, count in sorted(file.parameters.items(), key=lambda item: -item[1]):
            table.add_row(f"  {escape(part)}", f"{count:,}")
        for key, value in file.metadata.items():
            table.add_row(f"  {escape(key)}", escape(_shortened(value)))
    for key, value in info.config.items():
        table.add_row(f"config {escape(key)}", escape(_shortened(str(value))))
    return table


def findings_table(findings: Sequence[Finding]) -> Table:
    """What `doctor` found, part by part."""
    table = _table("", "", "", header=False)
    part = None
    for finding in findings:
        if part is not None and finding.part != part:
            table.add_section()
        color = "red" if finding.is_problem else "yellow" if finding.advice else "green"
        mend = f"; {finding.advice}" if finding.advice else ""
        table.add_row(
            finding.part if finding.part != part else "",
            escape(finding.name),
            f"[{color}]{escape(finding.value)}[/{color}]{escape(mend)}",
        )
        part = finding.part
    return table


def _table(*columns: str, header: bool = True) -> Table:
    from rich.box import SIMPLE_HEAD

    table = Table(box=SIMPLE_HEAD, show_header=header, pad_edge=False, caption_justify="left")
    for index, column in enumerate(columns):
        # Names stay whole; the last column takes what a narrow terminal leaves.
        table.add_column(column, overflow="fold", no_wrap=index < len(columns) - 1)
    return table


def _share(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def _shortened(text: str, length: int = 100) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."
