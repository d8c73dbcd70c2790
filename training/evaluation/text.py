"""Phrases: every mask they name or nothing, by every strategy, in one table.

    python -m training.evaluation.text dev/voc_val.parquet dev/car_parts.parquet --json F.json
    python -m training.evaluation.text dev/coco_instances.parquet --limit 30 \
        --strategies auto prompt rank components --parts --sheet S.png

The questions are in `phrases/questions.py`, the figures of a strategy in `strategy_tally.py`, the
further parts in `text_parts.py` and `phrase_cost.py`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

from ..data import Sample
from .command import EvaluationOptions, SheetOption, measure_sets, progress, run_command
from .data_sets import BadInputError, DataSet
from .figures.case_sheets import Gallery, write_sheet
from .phrases.asking import StrategyView
from .phrases.phrase_cost import measure_memory, measure_seconds
from .phrases.questions import Questions, Siblings, questions_of
from .phrases.strategy_tally import StrategyTally
from .phrases.text_parts import ClickTally, ExclusionTally, MapTally, UnionTally
from .phrases.text_tables import show_parts, show_phrases, show_single, show_strategies

Strategy = Literal["auto", "prompt", "detect", "concept", "rank", "components"]
Galleries = dict[str, Gallery]
Part = Literal["union", "click", "exclude", "map", "cost"]


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Settings."""

    minimum: ClassVar[Mapping[str, int]] = {"absent": 0}

    # What is compared. "components" is the baseline, connected components of the phrase's map;
    # "prompt" and "rank" take seconds per photo.
    strategies: tuple[Strategy, ...] = ("auto", "components")
    # What else is measured of the default strategy; nothing with --parts alone.
    parts: tuple[Part, ...] = ("union", "click", "exclude", "map", "cost")
    prompt: bool = True  # Whether single objects are asked by strategy "prompt"
    # Absent phrases drawn for a photo, half of them the nearest in CLIP's text space to what is
    # there; fewer where the file has fewer. With 0 no absent phrase is asked.
    absent: int = 10
    # Ask every phrase once more with this threshold, for AP and AR alone, since the levels of a
    # model cut off what COCO's AP would still rank.
    ap_threshold: float | None = None
    seed: int = 0  # Decides the wrong and the absent phrases, and the intervals


@dataclass(frozen=True, kw_only=True)
class TextOptions(TextConfig, SheetOption, EvaluationOptions):
    """Measure phrases, which are the file's own labels.

    On exhaustive photos, for each strategy: recall and precision of instances at IoU .5, AP50, AP
    and AR, precision, recall and F1 of presence with absent phrases, AUROC, calibration errors. Of
    the default strategy also, as parts: the IoU of the union and of single objects beside a wrong
    phrase and the whole image, one corrective click, exclusions, semantic maps, seconds and memory.
    """

    def check(self) -> None:
        """Also refuse a threshold outside (0, 1)."""
        if self.ap_threshold is not None and not 0 < self.ap_threshold < 1:
            raise BadInputError(
                f"--ap-threshold {self.ap_threshold}: wanted a number between 0 and 1"
            )
        super().check()


class _TextTallies:
    """The tallies of one file, filled photo by photo."""

    def __init__(
        self, model: Any, data: DataSet, config: TextConfig, galleries: Galleries | None
    ) -> None:
        self.config = config
        self.strategies = [
            StrategyTally(name, data.labels, galleries=galleries)
            for name in dict.fromkeys(config.strategies)
        ]
        clip = getattr(model, "clip", None)
        self.siblings = None if clip is None else Siblings.from_clip(clip, data.labels)
        self.unions = UnionTally(prompt=config.prompt)
        self.clicks = ClickTally(gallery=(galleries or {}).get("auto, click"))
        self.exclusions = ExclusionTally(self.siblings)
        self.maps = MapTally(data.labels)
        # The model's own threshold of the map, for the baseline.
        self.level = float(getattr(getattr(model, "text_settings", None), "threshold", 0.5))

    def add_photo(self, view: Any, sample: Sample, questions: Questions) -> None:
        """Ask an open photo everything."""
        config, parts = self.config, self.config.parts
        names: tuple[str, ...] = ("auto", *config.strategies)
        views = {name: StrategyView(view, name, level=self.level) for name in names}
        for tally in self.strategies if sample.exhaustive else ():
            loose = None
            # A view with a lower threshold, for AP; the baseline has none.
            if config.ap_threshold is not None and tally.strategy != "components":
                loose = StrategyView(view, tally.strategy, threshold=config.ap_threshold)
            tally.add_photo(views[tally.strategy], sample, questions, loose=loose)
        if "union" in parts:
            self.unions.add_photo(views["auto"], sample, questions.phrases)
        if "click" in parts:
            self.clicks.add_photo(view, sample, questions.phrases)
        if sample.exhaustive and "exclude" in parts:
            self.exclusions.add_photo(views["auto"], sample, questions)
        if sample.exhaustive and "map" in parts:
            self.maps.add_photo(view, sample, questions.phrases)

    def figures(self) -> dict[str, Any]:
        """Everything but counts and times; see `measure_set`."""
        seed = self.config.seed
        strategies = {tally.strategy: tally.figures(seed=seed) for tally in self.strategies}
        first = self.strategies[0]
        return {
            "strategies": strategies,
            **self.unions.figures(),
            "click": self.clicks.figures(seed=seed),
            "exclude": self.exclusions.figures(seed=seed),
            "map": self.maps.figures(),
            "presence": strategies[first.strategy]["presence"],
            "presence_items": first.pairs,
        }


def measure_set(
    model: Any,
    data: DataSet,
    *,
    config: TextConfig,
    galleries: Galleries | None = None,
    name: str | None = None,
    detector: str | None = None,
) -> dict[str, Any]:
    """Measure one file.

    Returns:
        `photos`, `skipped` (objects or phrases by reason), `strategies` (see
        `StrategyTally.figures`, by name), `means`, `single` and `items` (see
        `UnionTally.figures`), `click`, `exclude`, `map`, `cost`, `presence` and `presence_items` of
        the first strategy, and `seconds_per_photo`.
    """
    tallies = _TextTallies(model, data, config, galleries)
    skipped = {"objects without a name": 0, "phrases wholly void": 0, "phrases not single": 0}
    draws: dict[str, Any] = {"absent": config.absent, "seed": config.seed}
    seconds, opened = 0.0, 0
    for sample in progress(data.samples, data.name):
        started = time.perf_counter()
        questions = questions_of(sample, data.labels, tallies.siblings, skipped, **draws)
        if questions.any:
            opened += 1
            with model.open(sample.image()) as view:
                tallies.add_photo(view, sample, questions)
            seconds += time.perf_counter() - started
    cost = None
    if opened and "cost" in config.parts:
        cost = measure_seconds(model, data)
        memory = None if name is None else measure_memory(name, data, detector)
        cost["memory"] = memory
    return {
        "photos": len(data.samples),
        "skipped": skipped,
        **tallies.figures(),
        "cost": cost,
        "seconds_per_photo": seconds / opened if opened else None,
    }


def _galleries(config: TextConfig) -> Galleries:
    """The galleries of one set: each strategy's "union" and "absent", and "click"."""
    galleries: Galleries = {}
    for name in config.strategies:
        galleries[f"{name}, union"] = Gallery(figure="IoU of the union")
        galleries[f"{name}, absent"] = Gallery(figure="score, absent phrase", sides=("highest",))
    if "click" in config.parts:
        galleries["auto, click"] = Gallery(figure="gain of a click")
    return galleries


def _run(options: TextOptions) -> None:
    sheet: Galleries = {}

    def measure(model: Any, data: DataSet) -> dict[str, Any]:
        galleries = _galleries(options) if options.sheet else {}
        names = {"name": options.model, "detector": options.detector}
        figures = measure_set(model, data, config=options, galleries=galleries, **names)
        sheet.update({f"{data.name}, {name}": gallery for name, gallery in galleries.items()})
        write_sheet(options.sheet, sheet)
        return figures

    measured = measure_sets(options, measure)
    show_strategies(measured, model=options.model, config=options)
    if "union" in options.parts:
        show_phrases(measured, model=options.model)
        show_single(measured, model=options.model)
    show_parts(measured, model=options.model)


main = partial(run_command, TextOptions, _run)

if __name__ == "__main__":
    sys.exit(main())
