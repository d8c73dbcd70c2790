"""The command line: `textsam segment`, `everything`, `refine`, `embed`, `search`, `demo`, ...

Results go to standard output, everything else to standard error. Exit codes: 0, success (also if
nothing was found); 1, a photo or the run failed, with one line that says why; 2, a wrong command
line; 130, stopped with Ctrl-C. Each command imports what is slow inside its function, so that
`--help` stays fast.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from textsam.cli.calibrate import calibrate
from textsam.cli.demo import demo
from textsam.cli.doctor import doctor
from textsam.cli.embed import embed
from textsam.cli.everything import everything
from textsam.cli.export import export
from textsam.cli.hints import HintingCommand, HintingGroup
from textsam.cli.info import info, models
from textsam.cli.refine import refine
from textsam.cli.search import search
from textsam.cli.segment import segment

app = typer.Typer(
    name="textsam",
    cls=HintingGroup,
    no_args_is_help=True,
    add_completion=False,
    # Errors are one line (console.one_line_errors); a traceback of typer's would be pages.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# In this order they stand in the help, each with lines to start from.
EXAMPLES: dict[Callable[..., None], tuple[str, ...]] = {
    segment: (
        "textsam segment bus.jpg -t wheel -o wheel.png",
        "textsam segment photos/ -t dog -t cat -o masks --format json",
        "textsam segment scene.tif -t field --bands 4,3,2 --white auto -o field.png",
    ),
    everything: (
        "textsam everything bus.jpg -o everything.json",
        "textsam everything photos/ -o masks --preset paper",
    ),
    refine: (
        "textsam refine rough.json --photo bus.jpg -o better.json",
        "textsam refine instances.json --photos photos/ -o better.json",
    ),
    embed: (
        "textsam embed photos/ -o masks.lance",
        "textsam embed coco:instances.json@photos -o masks.lance",
    ),
    search: (
        'textsam search masks.lance -t "yellow bus" -o found.png',
        "textsam search masks.lance --like bus.jpg -p 120,240",
    ),
    demo: ("textsam demo", "textsam demo --port 8080", "textsam demo --static site --serve"),
    export: (
        "textsam export tiny -o tiny-onnx",
        "textsam export sam-vit-base -o sam-onnx --parts encoder,decoder --dtype fp16",
    ),
    calibrate: ("textsam calibrate coco:instances.json@photos -o calibration.json",),
    models: ("textsam models",),
    info: ("textsam info tiny", "textsam info sam_vit_b_01ec64.pth"),
    doctor: ("textsam doctor",),
}
for _command, _lines in EXAMPLES.items():
    # A blank line keeps the lines apart.
    _epilog = "\n\n".join([f"Example{'s' * (len(_lines) > 1)}:", *_lines])
    app.command(cls=HintingCommand, epilog=_epilog)(_command)


def main() -> None:
    """Run the command line."""
    app()


def _print_version(wanted: bool) -> None:
    if wanted:
        from textsam import __version__

        typer.echo(f"textsam {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Say what you want, get its mask."""
