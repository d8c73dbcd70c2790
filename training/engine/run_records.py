"""Records of a run: `log.jsonl`, TensorBoard, the progress bar, and means over steps."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from textsam.errors import require
from textsam.pictures.draw import PICTURE_SUFFIXES
from textsam.values.files import write_atomically

logger = logging.getLogger(__name__)


class FigureMeans:
    """Weighted means of figures since the last record; values that are not finite do not count."""

    def __init__(self) -> None:
        # Figure -> [sum of weight * value, sum of weights] of this process.
        self.sums: dict[str, list[float]] = {}

    def add(self, values: Mapping[str, Tensor | float], *, weight: float) -> None:
        """Add figures of `weight` items."""
        for name, value in values.items():
            # Created even if the value does not count: every process must have the same names.
            total = self.sums.setdefault(name, [0.0, 0.0])
            number = value.item() if isinstance(value, Tensor) else float(value)
            if math.isfinite(number):
                total[0] += weight * number
                total[1] += weight

    def totals(self, total: Callable[[Sequence[float]], list[float]]) -> dict[str, list[float]]:
        """The sums over all processes; `total` adds lists of numbers over the processes."""
        names = sorted(self.sums)
        flat = total([number for name in names for number in self.sums[name]])
        return {name: flat[2 * i : 2 * i + 2] for i, name in enumerate(names)}


class RunRecords:
    """`log.jsonl` and event files of one run, continued from a step."""

    def __init__(self, folder: Path, *, step: int, tensorboard: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "log.jsonl"
        # Later records are of a run that was killed before its next checkpoint: those steps are
        # trained again.
        kept = [record for record in _read(self.path) if record["step"] <= step]
        if self.path.exists():
            lines = "".join(json.dumps(record) + "\n" for record in kept)
            write_atomically(self.path, lines.encode())
        self.evaluated = {record["step"] for record in kept if "evaluation" in record}
        self.last: dict[str, float | None] = {}  # of the last record and the last evaluation
        for record in kept:
            self._remember(record)
        self._board: Any = None
        if tensorboard:
            require("tensorboard", "train")
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def __enter__(self) -> RunRecords:
        return self

    def __exit__(self, *_: object) -> None:
        if self._board is not None:
            self._board.close()

    def write(
        self, step: int, means: Mapping[str, Sequence[float]], **others: float | None
    ) -> None:
        """Record means, each given as [sum, weight], and other figures of this step."""
        figures = {
            name: total / weight if weight else None for name, (total, weight) in means.items()
        }
        record = {"step": step, **others, **figures}
        self._append(record)
        self._scalars("train", {**others, **figures}, step)

    def write_evaluation(self, step: int, figures: Mapping[str, float], pictures: Path) -> None:
        """Record an evaluation and show every picture file of its folder in TensorBoard."""
        values = {name: float(value) for name, value in figures.items()}
        record = {"step": step, "evaluation": {n: _finite(value) for n, value in values.items()}}
        self._append(record)
        self.evaluated.add(step)
        self._scalars("evaluation", values, step)
        if self._board is None or not pictures.is_dir():
            return
        for path in sorted(pictures.iterdir()):
            if path.suffix.lower() in PICTURE_SUFFIXES:
                array = np.asarray(Image.open(path).convert("RGB"))
                self._board.add_image(path.stem, array, step, dataformats="HWC")
        self._board.flush()

    def _append(self, record: Mapping[str, Any]) -> None:
        line = json.dumps({name: _finite(value) for name, value in record.items()})
        logger.info("%s", line)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        self._remember(record)

    def _remember(self, record: Mapping[str, Any]) -> None:
        self.last.update(record.get("evaluation", record))

    def _scalars(self, group: str, values: Mapping[str, float | None], step: int) -> None:
        if self._board is not None:
            for name, value in values.items():
                if value is not None:
                    self._board.add_scalar(f"{group}/{name}", value, step)


class TrainingBar:
    """Steps done, loss and time left, on standard error if it is a terminal."""

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

    def __enter__(self) -> TrainingBar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, step: int, loss: float) -> None:
        """Show a step and this process's loss in it."""
        self._progress.update(self._task, completed=step, description=f"loss {loss:.4f}")


def _read(path: Path) -> Iterable[dict[str, Any]]:
    """Records of a log; the last line of a killed run may be incomplete."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            logger.warning("%s: a line is cut short and left out: %.40s", path, line)


def _finite(value: Any) -> Any:
    """None in place of NaN and infinity, which JSON does not have."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
