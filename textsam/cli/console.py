"""The terminal: consoles, progress bars, and errors as one line with an exit code."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import typer

if TYPE_CHECKING:
    from rich.console import Console

# Set this to see the traceback of an error instead of one line.
_TRACEBACK = "TEXTSAM_TRACEBACK"


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn errors into one line on standard error and an exit code: 1, or 130 for Ctrl-C.

    What was assumed about a photo (`ImageNote`) becomes a line, too, once for all photos.
    """
    try:
        with _notes():
            yield
    # How typer ends a command on purpose.
    except (typer.Exit, typer.Abort):
        raise
    except KeyboardInterrupt:
        # Every file is written at once or not at all, so that nothing is half done.
        typer.echo("stopped; finished results are kept", err=True)
        raise typer.Exit(130) from None
    except Exception as error:
        if os.environ.get(_TRACEBACK):
            raise
        from textsam.errors import TextSamError, one_line

        expected = isinstance(error, TextSamError | ValueError | OSError)
        more = "" if expected else f" (set {_TRACEBACK}=1 for the traceback)"
        typer.echo(f"error: {one_line(error)}{more}", err=True)
        raise typer.Exit(1) from None


@contextmanager
def _notes() -> Iterator[None]:
    from textsam.errors import ImageNote

    said: set[str] = set()
    show_others = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *rest: Any, **options: Any) -> None:
        if not issubclass(category, ImageNote):
            show_others(message, category, *rest, **options)
            return
        # The same note about another photo differs in its numbers only.
        kind = re.sub(r"\d+", "", str(message))
        if kind not in said:
            typer.echo(f"note: {message}", err=True)
        said.add(kind)

    with warnings.catch_warnings():
        warnings.simplefilter("always", ImageNote)
        warnings.showwarning = show
        yield


def make_console(*, stderr: bool = False) -> Console:
    """A console for results, or one for progress and errors."""
    from rich.console import Console

    # rich would colour every number and path.
    return Console(stderr=stderr, highlight=False)


def print_line(text: str, *, console: Console | None = None) -> None:
    """Print one line as it is, without colours or wrapping, so that paths can be copied."""
    (console or make_console()).print(text, soft_wrap=True, markup=False)


class TerminalProgress:
    """A progress bar on standard error that disappears at the end; use it in a `with`."""

    def __init__(self, description: str = "", *, total: int | None = None) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self._progress = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}", markup=False),
            console=make_console(stderr=True),
            transient=True,
        )
        self._task = self._progress.add_task(description, total=total)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, done: int, total: int | None = None, description: str | None = None) -> None:
        """Show how many items are done, out of how many (as before if None)."""
        self._progress.update(self._task, completed=done, total=total, description=description)

    def show_failure(self, photo: str, error: str) -> None:
        """Print a photo that failed above the bar."""
        from rich.text import Text

        line = Text.assemble(("failed", "red"), f" {photo}: {error}")
        self._progress.console.print(line, soft_wrap=True, highlight=False)
