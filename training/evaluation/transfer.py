"""Concept transfer: masks found by one example from another photo, beside those found by its name.

    python -m training.evaluation.transfer DATA.parquet ... [--limit N]

Each photo that names all it has (or all it lacks) is asked twice for the same things: by name, and
by one object of that name that was cut from another photo of the file, `segment(like=...)`. The
truth, the absent names and the figures are those of `training.evaluation.text`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from textsam.errors import TextSamError, WeightsError

from .clicks.protocol import masked_iou, mean
from .phrases.asking import Asked
from .phrases.examples import Examples, ExampleView
from .phrases.questions import NAMELESS, Siblings, questions_of
from .phrases.strategy_tally import StrategyTally
from .table import (
    BadInputError,
    DataSet,
    add_common_options,
    at_least,
    complain,
    measure_files,
    number,
    numbers,
    progress,
    show_table,
)

__all__ = ["WAYS", "main", "measure_set"]

WAYS = ("by name", "by example")


def measure_set(model: Any, data: DataSet, *, absent: int, seed: int) -> dict[str, Any]:
    """Measure one file.

    Args:
        model: A `TextSAM` with a CLIP.
        data: The photos; those that are not exhaustive are passed over.
        absent: Absent names a photo, half of them siblings of what it has.
        seed: Decides absent names and examples.

    Returns:
        `name`, `path`, `photos`, and by each of `WAYS` the figures of a strategy (see
        `StrategyTally.figures`) with `union`, the mean IoU over (photo, phrase), and `seconds`, the
        mean of a question to a photo that is encoded.

    Raises:
        WeightsError: The model has no CLIP.
    """
    if model.clip is None:
        raise WeightsError("this model has no CLIP, so names and examples cannot be compared")
    labels = [label for label in data.labels if label not in NAMELESS]
    siblings = Siblings.from_clip(model.clip, labels)
    examples = Examples(model, data.samples, seed=seed)
    tallies = {way: StrategyTally(way, labels) for way in WAYS}
    unions: dict[str, list[float]] = {way: [] for way in WAYS}
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    photos = 0
    for sample in progress(data.samples, data.name):
        if not (sample.exhaustive or sample.absent):
            continue
        own = sample.absent or labels
        drawn = questions_of(
            sample, own, siblings, defaultdict(int), absent=absent, all_labels=False, seed=seed
        )
        questions = examples.answerable(drawn, besides=sample.image_id)
        if not questions.any:
            continue
        photos += 1
        with model.open(sample.image()) as view:
            if model.has_dense_text:
                view.text_map(labels[0])  # or the first way alone would pay for the map's features
            by_example = ExampleView(view, examples, image_id=sample.image_id)
            for way, asked in zip(WAYS, (view, by_example), strict=True):
                one = Asked(asked, "auto")
                started = time.perf_counter()
                tallies[way].add_photo(one, sample, questions)
                count = len(questions.phrases) + len(questions.absent)
                seconds[way].append((time.perf_counter() - started) / count)
                unions[way] += [
                    masked_iou(one.ask(p.label).union, p.truth, exclude=p.ignored)
                    for p in questions.phrases
                ]
    return {
        "name": data.name,
        "path": str(data.path),
        "photos": photos,
        **{
            way: {
                **tallies[way].figures(seed=seed),
                "union": mean(unions[way]),
                "seconds": float(np.median(seconds[way])) if seconds[way] else None,
            }
            for way in WAYS
        },
    }


def _show(sets: Sequence[dict[str, Any]], *, model: str) -> None:
    rows = []
    for item in sets:
        for way in WAYS:
            row = item[way]
            verdicts, instances = row["verdicts"], row["instances"]
            rows.append(
                [
                    f"{item['name']}, {way}",
                    *(str(item["photos"]), str(verdicts["present"]), str(verdicts["absent"])),
                    number(row["union"]),
                    *numbers(instances, ("recall", "precision")),
                    *numbers(verdicts, ("recall", "absent_empty", "siblings_empty", "auroc")),
                    number(row["masks"]["ece"]),
                    number(verdicts["ece"]),
                    number(row["seconds"], digits=2),
                ]
            )
    columns = ["set, asked", "photos", "present", "absent", "union", "recall", "prec"]
    columns += ["answered", "empty", "hard", "AUROC", "ECE mask", "pres", "s"]
    notes = [
        "by example: one object of the name, from another photo of the file; the same questions",
        "recall, prec: instances at IoU .5; answered, empty: shares of present and absent names "
        "(hard: siblings); s: median of a question to an encoded photo",
    ]
    show_table(f"Concept transfer, model {model}", columns, rows, notes=notes)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code (2: the input or the model is at fault)."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}.transfer",
        description="Ask photos for things by one example from another photo, and by name.",
    )
    add_common_options(parser)
    parser.add_argument(
        "--absent",
        type=at_least(0),
        default=10,
        metavar="N",
        help="absent names drawn for a photo, half of them siblings (default: 10)",
    )
    options = parser.parse_args(arguments)

    def measure(model: Any, data: DataSet) -> dict[str, Any]:
        return measure_set(model, data, absent=options.absent, seed=options.seed)

    try:
        measured = measure_files(options, measure, protocol={"ways": WAYS})
    except (BadInputError, TextSamError) as error:
        return complain(parser, error)
    _show(measured, model=options.model)
    return 0


if __name__ == "__main__":
    sys.exit(main())
