"""`textsam demo`: the explorer in a browser."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from textsam.cli.console import make_console, one_line_errors
from textsam.errors import require

__all__ = ["demo"]


def demo(
    model: Annotated[
        str, typer.Option("--model", help="tiny, a folder or file of weights, or a hub id.")
    ] = "tiny",
    clip: Annotated[
        str | None, typer.Option("--clip", help="CLIP to go with a SAM that has none.")
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option("--calibration", metavar="FILE", help="What `textsam calibrate` wrote."),
    ] = None,
    index: Annotated[
        str | None, typer.Option("--index", metavar="URI", help="A MaskIndex for the search tab.")
    ] = None,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="0: any free one.")] = 7860,
    mcp: Annotated[
        bool, typer.Option("--mcp", help="Let agents in, over the Model Context Protocol.")
    ] = False,
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda, mps.")] = None,
) -> None:
    """Explore photos in a browser: phrases, clicks, boxes, everything, export."""
    from textsam.cli import app as cli

    with one_line_errors():
        console = make_console(stderr=True)
        with console.status("starting"):
            launch = _open_demos()
            if mcp:
                require("mcp", "demo")
        launch.serve(
            model,
            lambda: cli.load_model(model, clip=clip, device=device, calibration=calibration),
            say=lambda words: console.print(words, soft_wrap=True),
            index=index,
            host=host,
            port=port,
            mcp=mcp,
        )


def _open_demos() -> Any:
    """`demos.launch`: inside the wheel, or beside `textsam` in a checkout."""
    require("gradio", "demo")  # it would be missing one by one in what is imported next
    if find_spec("textsam.demos") is None:
        return require("demos.launch", "demo")
    return require("textsam.demos.launch", "demo")
