"""`textsam info`: what is in a model, or which models there are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import typer

from textsam.cli.console import make_console, one_line_errors

if TYPE_CHECKING:
    from rich.table import Table


def info(
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="tiny, a folder or file, or a Hub id.")
    ] = None,
) -> None:
    """Show a model's architecture, parameters, sizes and licence; or list the known models."""
    with one_line_errors():
        table = _known_models_table() if model is None else _model_table(model)
        make_console().print(table)


def _known_models_table() -> Table:
    from textsam.cli.tables import make_table
    from textsam.weights.info import KNOWN_MODELS, find_model

    table = make_table("model", "architecture", "parameters", "size", "licence")
    for model in KNOWN_MODELS:
        is_here = find_model(model.name) is not None
        table.add_row(
            f"[green]{model.name} *[/green]" if is_here else model.name,
            model.architecture,
            "-" if math.isnan(model.parameters) else f"{model.parameters:.1f} M",
            f"{'<= ' if model.shipped else ''}{model.megabytes} MB",
            model.license,
        )
    table.caption = "* on this machine. Any folder or Hub id of a SAM works too."
    return table


def _model_table(name: str) -> Table:
    """What the files of one model say, line by line."""
    from textsam.cli.tables import make_table
    from textsam.weights.info import read_model_info

    info = read_model_info(name)
    rows = [
        ("model", info.name),
        ("folder", str(info.folder)),
        ("licence", info.license or "not stated in its files"),
    ]
    if info.parameters:
        rows.append(("parameters", f"{info.parameters:,}"))
    for file in info.files:
        dtypes = " ".join(file.dtypes) or "not opened (no safetensors)"
        rows.append((file.path.name, f"{file.size / 1e6:,.1f} MB, {dtypes}"))
        parts = sorted(file.parameters.items(), key=lambda part: -part[1])
        rows += [(f"  {part}", f"{count:,}") for part, count in parts]
        rows += [(f"  {key}", _shorten(value)) for key, value in file.metadata.items()]
    rows += [(f"config {key}", _shorten(str(value))) for key, value in info.config.items()]
    return make_table("", "", rows=rows, header=False)


def _shorten(text: str, length: int = 100) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."
