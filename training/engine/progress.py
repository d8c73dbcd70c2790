"""A progress bar with the time left; nothing where nobody looks."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["ProgressBar"]


class ProgressBar:
    """Steps done, loss and time left, on standard error if that is a terminal."""

    def __init__(
        self, steps: int, *, done: int, show: bool, console: Console | None = None
    ) -> None:
        console = Console(stderr=True) if console is None else console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not (show and console.is_terminal),
        )
        self._task = self._progress.add_task("training", total=steps, completed=done)

    def __enter__(self) -> ProgressBar:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def show(self, step: int, loss: float) -> None:
        """Move on to a step; `loss` is this process's, of that step."""
        self._progress.update(self._task, completed=step, description=f"loss {loss:.4f}")
