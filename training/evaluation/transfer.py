"""Concept transfer: masks by one example from another photo, beside masks by name.

    python -m training.evaluation.transfer DATA.parquet ... [--limit N]

Each photo that names all it has (or all it lacks) is asked twice for the same things: by name, and
by one object of that name that was cut from another photo of the file, `segment(like=...)`. The
truth, the absent names and the figures are those of `training.evaluation.text`.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np

from textsam.errors import ImageError, WeightsError
from textsam.results.segmentation import Segmentation
from textsam.values.rle import rle_area

from ..data import ObjectMask, Sample
from .command import EvaluationOptions, measure_sets, progress, run_command
from .data_sets import DataSet, seeded_rng
from .figures.intervals import mean
from .figures.matching import masked_iou
from .figures.result_table import Column, columns_of, show_figures
from .phrases.asking import StrategyView
from .phrases.questions import NAMELESS, Questions, Siblings, questions_of
from .phrases.strategy_tally import StrategyTally

WAYS = ("by name", "by example")

# An example is no speck: its side is at least this share of the root of the photo's area.
_MIN_SIDE = 0.1
_MAX_PHOTOS = 8  # that are tried for an example of a label


@dataclass(frozen=True, kw_only=True)
class TransferOptions(EvaluationOptions):
    """Ask photos for things by one example from another photo, and by name."""

    minimum: ClassVar[Mapping[str, int]] = {"absent": 0}

    absent: int = 10  # Absent names drawn for a photo, half of them siblings


class Examples:
    """For each label one object of another photo, as the model embeds it."""

    def __init__(self, model: Any, samples: Sequence[Sample], *, seed: int) -> None:
        self.model = model
        self.samples = samples
        self.seed = seed
        self._rows: dict[str, list[int]] = {}
        for row, sample in enumerate(samples):
            # Rows only: photos are decoded and embedded when an example of them is needed.
            for label in {o.label for o in sample.objects if _is_clear(o, sample)} - NAMELESS:
                self._rows.setdefault(label, []).append(row)
        self._concepts: dict[tuple[str, int], Any] = {}

    def concept(self, label: str, *, besides: str) -> Any:
        """An example of the label; None if no photo but `besides` has a clear one."""
        rows = self._rows.get(label, [])
        for index in seeded_rng(self.seed, label).permutation(len(rows))[:_MAX_PHOTOS]:
            row = rows[index]
            if self.samples[row].image_id != besides:
                if (label, row) not in self._concepts:
                    self._concepts[label, row] = self._embed(label, self.samples[row])
                if self._concepts[label, row] is not None:
                    return self._concepts[label, row]
        return None

    def answerable(self, questions: Questions, *, besides: str) -> Questions:
        """Those of a photo's questions that there is an example for."""

        def known(labels: Iterable[str]) -> set[str]:
            return {label for label in labels if self.concept(label, besides=besides) is not None}

        phrases = known(phrase.label for phrase in questions.phrases)
        absent = known(item.label for item in questions.absent)
        return replace(
            questions,
            phrases=tuple(p for p in questions.phrases if p.label in phrases),
            absent=tuple(a for a in questions.absent if a.label in absent),
            rest=(),
        )

    def segment(self, view: Any, *, text: str, image_id: str, **options: Any) -> Segmentation:
        """Masks in an open photo of what the label's example shows; see `StrategyView`."""
        concept = self.concept(text, besides=image_id)
        if concept is None:
            raise ValueError(f"no photo but {image_id} has a clear {text!r}")
        options.pop("strategy", None)  # an example has only one way to be searched for
        masks: Segmentation = view.segment(like=concept, **options)
        return masks

    def _embed(self, label: str, sample: Sample) -> Any:
        """One clear object of the photo, drawn with its id; None if the photo cannot be read."""
        try:
            image = sample.image()
        except ImageError:
            return None
        clear = [o for o in sample.objects if o.label == label and _is_clear(o, sample)]
        place = int(seeded_rng(self.seed, sample.image_id).integers(len(clear)))
        example = Segmentation(sample.size, [clear[place].rle], labels=[label], image=image)
        return self.model.concept(example)


def _is_clear(item: ObjectMask, sample: Sample) -> bool:
    height, width = sample.size
    return not item.ignore and rle_area(item.rle) >= _MIN_SIDE**2 * height * width


def measure_set(model: Any, data: DataSet, *, absent: int, seed: int) -> dict[str, Any]:
    """Measure one file.

    Returns:
        `photos`, and by each of `WAYS` the figures of a strategy (see `StrategyTally.figures`) with
        `union`, the mean IoU over (photo, phrase), and `seconds`, the median of a question to a
        photo that is encoded.
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
        vocabulary = sample.absent or labels
        drawn = questions_of(
            sample, vocabulary, siblings, defaultdict(int), absent=absent, seed=seed
        )
        # Both ways are asked the same questions, so those without an example go for both.
        questions = examples.answerable(drawn, besides=sample.image_id)
        if not questions.any:
            continue
        photos += 1
        with model.open(sample.image()) as view:
            if model.has_dense_text:
                view.text_map(labels[0])  # or the first way alone would pay for the map's features
            by_example = partial(examples.segment, view, image_id=sample.image_id)
            for way, segment in zip(WAYS, (view.segment, by_example), strict=True):
                answers = StrategyView(view, "auto", segment=segment)
                started = time.perf_counter()
                tallies[way].add_photo(answers, sample, questions)
                count = len(questions.phrases) + len(questions.absent)
                seconds[way].append((time.perf_counter() - started) / count)
                unions[way] += [
                    masked_iou(answers.ask(p.label).union, p.truth, exclude=p.ignored)
                    for p in questions.phrases
                ]
    return {
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
    rows = [
        {"title": f"{row['name']}, {way}", "photos": row["photos"], **row[way]}
        for row in sets
        for way in WAYS
    ]
    columns = [
        *columns_of("", {"set, asked": "title", "photos": "photos"}),
        *columns_of("verdicts", ("present", "absent")),
        Column("union", "union"),
        *columns_of("instances", {"recall": "recall", "prec": "precision"}),
        *columns_of("verdicts", {"answered": "recall", "empty": "absent_empty"}),
        *columns_of("verdicts", {"hard": "siblings_empty", "AUROC": "auroc"}),
        Column("ECE mask", "masks/ece"),
        Column("pres", "verdicts/ece"),
        Column("s", "seconds", 2),
    ]
    notes = [
        "by example: one object of the name, from another photo of the file; the same questions",
        "recall, prec: instances at IoU .5; answered, empty: shares of present and absent names "
        "(hard: siblings); s: median of a question to an encoded photo",
    ]
    show_figures(f"Concept transfer, model {model}", columns, rows, notes=notes)


def _run(options: TransferOptions) -> None:
    def measure(model: Any, data: DataSet) -> dict[str, Any]:
        return measure_set(model, data, absent=options.absent, seed=options.seed)

    _show(measure_sets(options, measure), model=options.model)


main = partial(run_command, TransferOptions, _run)

if __name__ == "__main__":
    sys.exit(main())
