"""Concept transfer: masks by examples from other photos, beside masks by name.

    python -m training.evaluation.transfer DATA.parquet ... [--limit N]

Each photo that names all it has (or all it lacks) is asked several times for the same things: by
name; by one object of that name that was cut from another photo of the file, `segment(like=...)`;
with `--positives 3` by three; and with `--negatives 3` by these and `unlike=` one object each of
the three names that CLIP puts nearest. The truth, the absent names and the figures are those of
`training.evaluation.text`.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from textsam.errors import WeightsError

from .command import EvaluationOptions, measure_sets, progress, run_command
from .data_sets import DataSet
from .figures.intervals import mean
from .figures.matching import masked_iou
from .figures.result_table import Column, columns_of, show_figures
from .phrases.asking import StrategyView
from .phrases.examples import Examples
from .phrases.questions import NAMELESS, Siblings, questions_of
from .phrases.strategy_tally import StrategyTally


@dataclass(frozen=True, kw_only=True)
class TransferOptions(EvaluationOptions):
    """Ask photos for things by examples from other photos, and by name."""

    minimum: ClassVar[Mapping[str, int]] = {"absent": 0, "positives": 1, "negatives": 0}

    positives: int = 1  # Also ask by this many examples, if that is more than one
    negatives: int = 0  # And by these with this many examples of what is not meant

    absent: int = 10  # Absent names drawn for a photo, half of them siblings


def ways_of(positives: int, negatives: int) -> dict[str, dict[str, int]]:
    """The ways to ask: numbers of `positives` and `negatives`; none by name."""
    ways = {"by name": {}, "by example": {"positives": 1}}
    if positives > 1:
        ways[f"by {positives} examples"] = {"positives": positives}
    if negatives:
        numbers = {"positives": positives, "negatives": negatives}
        ways[f"by {positives} + {negatives} unlike"] = numbers
    return ways


def measure_set(
    model: Any, data: DataSet, *, absent: int, seed: int, positives: int = 1, negatives: int = 0
) -> dict[str, Any]:
    """Measure one file.

    Returns:
        `photos`, `ways`, and by each of `ways_of` the figures of a strategy (see
        `StrategyTally.figures`) with `union`, the mean IoU over (photo, phrase), and `seconds`, the
        median of a question to a photo that is encoded.
    """
    if model.clip is None:
        raise WeightsError("the model has no CLIP, so names and examples cannot be compared")
    labels = [label for label in data.labels if label not in NAMELESS]
    siblings = Siblings.from_clip(model.clip, labels)
    ways = ways_of(positives, negatives)
    examples = {
        way: Examples(model, data.samples, seed=seed, **numbers, siblings=siblings)
        for way, numbers in ways.items()
        if numbers
    }
    tallies = {way: StrategyTally(way, labels) for way in ways}
    unions: dict[str, list[float]] = {way: [] for way in ways}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    photos = 0
    for sample in progress(data.samples, data.name):
        if not (sample.exhaustive or sample.absent):
            continue
        known = sample.absent or labels
        drawn = questions_of(sample, known, siblings, defaultdict(int), absent=absent, seed=seed)
        # All ways are asked the same questions, so those without an example go for all.
        questions = examples["by example"].answerable(drawn, besides=sample.image_id)
        if not questions.any:
            continue
        photos += 1
        with model.open(sample.image()) as view:
            if model.has_dense_text:
                view.text_map(labels[0])  # or the first way alone would pay for the map's features
            asked: dict[str, Any] = {"by name": view.segment} | {
                way: partial(each.segment, view, image_id=sample.image_id)
                for way, each in examples.items()
            }
            for way, segment in asked.items():
                answers = StrategyView(view, "auto", segment=segment)
                started = time.perf_counter()
                tallies[way].add_photo(answers, sample, questions)
                count = len(questions.phrases) + len(questions.absent)
                seconds[way].append((time.perf_counter() - started) / count)
                unions[way] += [
                    masked_iou(answers.ask(p.label).union, p.truth, exclude=p.ignored)
                    for p in questions.phrases
                ]
    figures = {
        way: {
            **tallies[way].figures(seed=seed),
            "union": mean(unions[way]),
            "seconds": float(np.median(seconds[way])) if seconds[way] else None,
        }
        for way in ways
    }
    return {"photos": photos, "ways": list(ways), **figures}


def _show(sets: Sequence[dict[str, Any]], *, model: str) -> None:
    rows = [
        {"title": f"{row['name']}, {way}", "photos": row["photos"], **row[way]}
        for row in sets
        for way in row["ways"]
    ]
    columns = [
        *columns_of("", {"set, asked": "title", "photos": "photos"}),
        *columns_of("verdicts", ("present", "absent")),
        Column("union", "union"),
        *columns_of(
            "instances",
            {"recall": "recall", "prec": "precision", "prec all": "precision_all"},
        ),
        *columns_of("verdicts", {"answered": "recall", "empty": "absent_empty"}),
        *columns_of("verdicts", {"hard": "siblings_empty", "AUROC": "auroc"}),
        Column("ECE mask", "masks/ece"),
        Column("s", "seconds", 2),
    ]
    notes = [
        "by example: one object of the name, from another photo of the file; the same questions",
        "recall, prec: instances at IoU .5 (all: masks of absent names count, too); answered, "
        "empty: shares of present and absent names (hard: siblings); s: median of a question to an "
        "encoded photo",
    ]
    show_figures(f"Concept transfer, model {model}", columns, rows, notes=notes)


def _run(options: TransferOptions) -> None:
    def measure(model: Any, data: DataSet) -> dict[str, Any]:
        numbers = {"positives": options.positives, "negatives": options.negatives}
        return measure_set(model, data, absent=options.absent, seed=options.seed, **numbers)

    _show(measure_sets(options, measure), model=options.model)


main = partial(run_command, TransferOptions, _run)

if __name__ == "__main__":
    sys.exit(main())
