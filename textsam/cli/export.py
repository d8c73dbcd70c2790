"""`textsam export`: a model as ONNX graphs, checked against the model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from textsam.cli import options
from textsam.cli.console import make_console, one_line_errors, print_line
from textsam.errors import require


def export(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="tiny, sam-vit-base, ..., a folder or a file.")
    ] = "tiny",
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FOLDER", help="Folder to write; MODEL-onnx if none."),
    ] = None,
    parts: Annotated[
        str | None,
        typer.Option("--parts", help="encoder,decoder,text (default: all that the model has)."),
    ] = None,
    dtype: Annotated[
        str,
        typer.Option("--dtype", help="fp32, fp16 or int8: how the weights are stored."),
    ] = "fp32",
    clip: options.ClipOption = None,
    calibration: options.CalibrationOption = None,
) -> None:
    """Write a model as ONNX graphs for browsers and programs without torch, and check them."""
    with one_line_errors():
        # Before the model, which is slow to load.
        for module in ("onnx", "onnxscript", "onnxruntime"):
            require(module, "export")
        from textsam.cli.tables import make_table
        from textsam.export.exporting import export_model

        folder = out or Path(f"{Path(model).stem}-onnx")
        loaded = options.load_model(model, clip=clip, calibration=calibration)
        chosen: Any = None if parts is None else [part.strip() for part in parts.split(",")]
        with make_console(stderr=True).status(f"exporting {loaded.name}"):
            rows = export_model(loaded, folder, parts=chosen, dtype=dtype)  # type: ignore[arg-type]
        table = make_table("file", "MB", "output", "difference", "allowed")
        last = ""
        for row in rows:
            size = f"{(folder / row.file).stat().st_size / 1e6:,.1f}"
            name, size = ("", "") if row.file == last else (row.file, size)
            table.add_row(name, size, row.output, f"{row.error:.1e}", f"{row.limit:.0e}")
            last = row.file
        table.caption = (
            "difference: the largest between onnxruntime and the model, as a share of the output's "
            "largest value"
        )
        make_console().print(table)
        print_line(f'wrote {folder}; use it by textsam.export.runtime.load("{folder}")')
