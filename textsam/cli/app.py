"""The command line: `textsam segment`, `everything`, `refine`, `embed`, `search`, `demo`, ...

Results go to standard output, everything else to standard error. Exit codes: 0, success (also if
nothing was found); 1, a photo or the run failed, with one line that says why; 2, a wrong command
line; 130, stopped with Ctrl-C. Each command imports what is slow inside its function, so that
`--help` stays fast.
"""

from __future__ import annotations

from typing import Annotated

import typer

from textsam.cli.calibrate import calibrate
from textsam.cli.demo import demo
from textsam.cli.doctor import doctor
from textsam.cli.embed import embed
from textsam.cli.everything import everything
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

# In this order they stand in the help.
_COMMANDS = (segment, everything, refine, embed, search, demo, calibrate, models, info, doctor)
for _command in _COMMANDS:
    app.command(cls=HintingCommand)(_command)


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
