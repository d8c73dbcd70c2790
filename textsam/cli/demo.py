"""`textsam demo`: the explorer in a browser; or, with `--static`, a page that needs no server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from textsam.cli import options
from textsam.cli.console import make_console, one_line_errors, print_line
from textsam.errors import PromptError, require

StaticOption = Annotated[
    Path | None,
    typer.Option(
        "--static",
        metavar="FOLDER",
        help="Write a page that runs the model in the browser itself, for any web server.",
    ),
]
ServeOption = Annotated[
    bool, typer.Option("--serve", help="With --static: serve the page on this machine, too.")
]


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
    static: StaticOption = None,
    serve: ServeOption = False,
    backend: options.BackendOption = "torch",
) -> None:
    """Explore photos in a browser: phrases, clicks, boxes, everything, export."""
    with one_line_errors():
        console = make_console(stderr=True)
        if serve and static is None:
            raise PromptError("--serve goes with --static FOLDER; the explorer serves by itself")
        if static is not None:
            _write_page(static, model, serve=serve, host=host, port=port, console=console)
            return
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
                backend=backend,
                calibration=calibration,
            ),
            say=lambda text: print_line(text, console=console),
            index=index,
            host=host,
            port=port,
            mcp=mcp,
        )


def _write_page(
    folder: Path, model: str, *, serve: bool, host: str, port: int, console: Any
) -> None:
    """Write the page and the model; serve them until the user stops it."""
    site: Any = options.import_guest("demos.web.static_site", "export")
    site.find_bundle()  # first: exporting takes a minute
    with console.status(f"exporting {model} for the browser"):
        site.write_site(folder, model=model)
    weight = site.page_weight(folder) / 1e6
    print_line(f"{folder}: a page of {weight:.0f} MB with {model}", console=console)
    if not serve:
        print_line("Serve it with: textsam demo --static FOLDER --serve", console=console)
        return
    server = site.open_server(folder, port=port, host=host)
    print_line(f"http://{host}:{server.server_address[1]}/ (Ctrl+C stops it)", console=console)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
