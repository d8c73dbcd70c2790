"""Train a recipe: `python -m training.train RECIPE [--field value]`.

python -m training.train --help            all recipes
python -m training.train RECIPE --help     all fields of one
torchrun --nproc-per-node N -m training.train RECIPE [--field value]

The same command resumes a run that was stopped or killed. See docs/training.md.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from textsam.errors import TextSamError, require

from .data.source import NoMasksError
from .recipes.base import Recipe, end_process, place_in_run
from .recipes.registry import RECIPES, find_recipe, summary

logger = logging.getLogger("training")

_BAD_INPUT = 2  # as argparse and tyro exit


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, train, and return the exit status.

    0: done, or the time limit was reached. 2: invalid arguments. 1: the run failed. 128 + n:
    stopped by signal n, after a checkpoint.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        _show_recipes()
        return 0 if words else _BAD_INPUT
    rank = place_in_run()[0]
    logging.basicConfig(
        level=logging.INFO if rank == 0 else logging.WARNING,
        format="%(asctime)s %(name)s %(message)s",
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        job = parse(words).prepare()
    except NoMasksError as error:  # typed well, but there is nothing in it
        return _complain(error, status=1)
    except (TextSamError, ValueError, OSError) as error:
        return _complain(error, status=_BAD_INPUT)
    try:
        result = job()
    except TextSamError as error:
        return _complain(error, status=1)
    if result is None or result.reason == "done":
        return 0
    logger.info(
        "stopped at step %d (%s): the same command goes on from %s",
        *(result.step, result.reason, result.checkpoint),
    )
    return 0 if result.reason == "seconds" else 128 + signal.Signals[result.reason].value


def parse(words: Sequence[str]) -> Recipe:
    """The recipe that a command line describes."""
    recipe = find_recipe(words[0])
    tyro: Any = require("tyro", "train")
    show = place_in_run()[0] == 0
    chosen: Recipe = tyro.cli(
        recipe,
        args=list(words[1:]),
        prog=f"python -m training.train {recipe.NAME}",
        console_outputs=show,
    )
    return chosen


def _complain(error: Exception, *, status: int) -> int:
    if place_in_run()[0] == 0:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False, highlight=False)
    else:
        logger.warning("%s", error)
    return status


def _show_recipes() -> None:
    console = Console()
    console.print("usage: python -m training.train RECIPE [--field value]\n", highlight=False)
    table = Table.grid(padding=(0, 2))
    for name, recipe in RECIPES.items():
        table.add_row(f"  {name}", summary(recipe))
    console.print(table)
    console.print("\nAll fields of one: python -m training.train RECIPE --help", highlight=False)


if __name__ == "__main__":
    end_process(main())
