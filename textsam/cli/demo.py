"""`textsam demo`: the explorer in a browser."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from textsam.cli import options
from textsam.cli.console import make_console, one_line_errors, print_line
from textsam.errors import require


def demo(
    model: options.ModelOption = "tiny",
    clip: options.ClipOption = None,
    detector: options.DetectorOption = None,
    calibration: options.CalibrationOption = None,
    index: Annotated[
        str | None, typer.Option("--index", metavar="URI", help="A MaskIndex for the search tab.")
    ] = None,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="0: any free port.")] = 7860,
    mcp: Annotated[
        bool, typer.Option("--mcp", help="Serve agents too, by the Model Context Protocol.")
    ] = False,
    device: options.DeviceOption = None,
    dtype: options.DtypeOption = None,
) -> None:
    """Explore photos in a browser: phrases, clicks, boxes, everything, export."""
    with one_line_errors():
        console = make_console(stderr=True)
        with console.status("starting"):
            # First, so that the error names it and not a module of demos.
            require("gradio", "demo")
            app: Any = options.import_guest("demos.page.app", "demo")
            if mcp:
                require("mcp", "demo")
        app.serve(
            model,
            # Loaded by the server, so that the page can be opened meanwhile.
            lambda: options.load_model(
                model,
                clip=clip,
                detector=detector,
                device=device,
                dtype=dtype,
                calibration=calibration,
            ),
            say=lambda text: print_line(text, console=console),
            index=index,
            host=host,
            port=port,
            mcp=mcp,
        )
