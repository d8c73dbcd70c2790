"""What every command does alike: one line for an error, an exit code, a console."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["make_console", "one_line_errors", "steps_bar"]

# Set to see the traceback of an error in place of one line.
_TRACEBACK = "TEXTSAM_TRACEBACK"


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn errors into one line on standard error and an exit code."""
    try:
        yield
    except (typer.Exit, typer.Abort):
        raise
    except KeyboardInterrupt:
        typer.echo("stopped; what is finished is kept", err=True)
        raise typer.Exit(130) from None
    except Exception as error:
        if os.environ.get(_TRACEBACK):
            raise
        from textsam.errors import TextSamError, one_line

        expected = isinstance(error, TextSamError | ValueError | OSError)
        more = "" if expected else f" (set {_TRACEBACK}=1 to see where)"
        typer.echo(f"error: {one_line(error)}{more}", err=True)
        raise typer.Exit(1) from None


def make_console(*, stderr: bool = False) -> Console:
    """A console for results, or for progress and errors."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


@contextmanager
def steps_bar(console: Console, name: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal; yields what is to be called with (steps done, steps in all)."""
    from rich.progress import Progress

    with Progress(console=console, transient=True) as bar:
        task = bar.add_task(name, total=None)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield show
