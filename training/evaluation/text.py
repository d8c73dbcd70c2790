"""Phrases: every mask they name or nothing, by every strategy, in one table.

    python -m training.evaluation.text dev/voc_val.parquet dev/car_parts.parquet --json F.json
    python -m training.evaluation.text dev/coco_instances.parquet --limit 30 \
        --strategies auto prompt rank components --parts --sheet S.png

A phrase is a label that the file's people gave (`questions.py`). Of each strategy, on exhaustive
photos: instances (`matching.py`), AP and AR (`average_precision.py`), presence with drawn absent
phrases (`presence.py`) and what its probabilities are worth (`reliability.py`). Of the default
strategy further parts: the union and single objects beside a wrong phrase (`unions.py`), one click
after the text (`correction.py`), exclusions (`exclusion.py`), semantic maps (`semantic.py`), and
what a phrase costs (`cost.py`).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from textsam.errors import TextSamError

from ..data import Sample
from .figures.sheet import Gallery, add_sheet_option, write_sheet
from .phrases.asking import STRATEGIES, Asked
from .phrases.correction import ClickTally
from .phrases.exclusion import ExclusionTally
from .phrases.phrase_cost import measure_memory, measure_seconds
from .phrases.questions import NAMELESS, Phrase, Questions, Siblings, questions_of
from .phrases.semantic_maps import MapTally
from .phrases.strategy_tally import StrategyTally
from .phrases.text_tables import show_labels, show_parts, show_phrases, show_single, show_strategies
from .phrases.unions import TextItem, UnionTally
from .table import (
    BadInputError,
    DataSet,
    add_common_options,
    at_least,
    complain,
    measure_files,
    progress,
)

__all__ = ["NAMELESS", "PARTS", "Phrase", "TextConfig", "TextItem", "main", "measure_set"]

PARTS = ("union", "click", "exclude", "map", "cost")


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Settings.

    Attributes:
        strategies: What is compared.
        parts: What else is measured of the default strategy.
        prompt: Whether part "union" asks single objects by strategy "prompt".
        presence: Whether absent phrases are asked.
        absent: How many absent phrases are drawn for a photo, half of them siblings.
        all_labels: Whether every other label of the file is asked as well, for AP and AUROC.
        ap_threshold: Ask once more with this `threshold`, for AP and AR alone; None to rank what
            the model's own levels let through, which is what its user gets.
        seed: Decides the wrong and the absent phrases, and the intervals.
    """

    strategies: tuple[str, ...] = ("auto", "components")
    parts: tuple[str, ...] = PARTS
    prompt: bool = True
    presence: bool = True
    absent: int = 10
    all_labels: bool = True
    ap_threshold: float | None = None
    seed: int = 0


class _Measurement:
    """One file: its tallies, filled photo by photo."""

    def __init__(
        self, model: Any, data: DataSet, *, config: TextConfig, galleries: Mapping[str, Gallery]
    ) -> None:
        self.model = model
        self.data = data
        self.config = config
        clip = getattr(model, "clip", None)
        self.siblings = None if clip is None else Siblings.from_clip(clip, data.labels)
        self.skipped = {
            "objects without a name": 0,
            "phrases wholly void": 0,
            "phrases not single": 0,
        }
        self.strategies = [
            StrategyTally(
                name,
                data.labels,
                galleries={
                    kind: galleries[key]
                    for kind in ("union", "absent")
                    if (key := f"{name}, {kind}") in galleries
                },
            )
            for name in config.strategies
        ]
        self.unions = UnionTally(prompt=config.prompt)
        self.clicks = ClickTally(gallery=galleries.get("auto, click"))
        self.exclusions = ExclusionTally(self.siblings)
        self.maps = MapTally(data.labels)

    def questions(self, sample: Sample) -> Questions:
        """What a photo is asked."""
        return questions_of(
            sample,
            self.data.labels,
            self.siblings,
            self.skipped,
            absent=self.config.absent if self.config.presence else 0,
            all_labels=self.config.all_labels,
            seed=self.config.seed,
        )

    def add_photo(self, sample: Sample, questions: Questions) -> None:
        """Open a photo and ask everything."""
        parts = self.config.parts
        # The model's own threshold of the dense map, for the baseline.
        settings = getattr(self.model, "text_settings", None)
        level = float(getattr(settings, "threshold", 0.5))
        with self.model.open(sample.image()) as view:
            asked = {
                name: Asked(view, name, level=level) for name in ("auto", *self.config.strategies)
            }
            if sample.exhaustive:
                for tally in self.strategies:
                    tally.add_photo(
                        asked[tally.strategy], sample, questions, loose=self._loose(view, tally)
                    )
            if "union" in parts:
                self.unions.add_photo(asked["auto"], sample, questions.phrases)
            if "click" in parts:
                self.clicks.add_photo(view, sample, questions.phrases)
            if sample.exhaustive and "exclude" in parts:
                self.exclusions.add_photo(asked["auto"], sample, questions)
            if sample.exhaustive and "map" in parts:
                self.maps.add_photo(view, sample, questions.phrases)

    def _loose(self, view: Any, tally: StrategyTally) -> Asked | None:
        """The view with the levels down, for AP; the baseline has none."""
        threshold = self.config.ap_threshold
        if threshold is None or tally.strategy == "components":
            return None
        return Asked(view, tally.strategy, threshold=threshold)

    def figures(self) -> dict[str, Any]:
        """Everything but the times; see `measure_set`."""
        seed = self.config.seed
        strategies = {tally.strategy: tally.figures(seed=seed) for tally in self.strategies}
        first = self.strategies[0]
        return {
            "skipped": self.skipped,
            "strategies": strategies,
            **self.unions.figures(),
            "click": self.clicks.figures(seed=seed),
            "exclude": self.exclusions.figures(seed=seed),
            "map": self.maps.figures(),
            "presence": strategies[first.strategy]["presence"],
            "presence_items": [asdict(pair) for pair in first.pairs],
        }


def measure_set(
    model: Any,
    data: DataSet,
    *,
    config: TextConfig,
    galleries: Mapping[str, Gallery] | None = None,
    name: str | None = None,
) -> dict[str, Any]:
    """Measure one file.

    Args:
        model: A `TextSAM`: `open(image)` gives a context manager with `segment`.
        data: The photos; wrong and absent phrases come from all labels of the file.
        config: The settings.
        galleries: See `_galleries`; they take the best and worst cases, for a sheet.
        name: What another process can load the model as, to measure its memory; None to leave
            that out.

    Returns:
        `name`, `path`, `photos`, `skipped` (objects or phrases by reason), `strategies` (see
        `StrategyTally.figures`, by name), `means`, `single`, `labels` and `items` (see
        `UnionTally.figures`), `click`, `exclude`, `map`, `cost`, `presence` and `presence_items` of
        the first strategy, and `seconds_per_photo`.

    Raises:
        WeightsError: The model cannot be asked by phrases.
        PromptError: Likewise.
    """
    measurement = _Measurement(model, data, config=config, galleries=galleries or {})
    seconds, opened = 0.0, 0
    for sample in progress(data.samples, data.name):
        started = time.perf_counter()
        questions = measurement.questions(sample)
        if questions.any:
            opened += 1
            measurement.add_photo(sample, questions)
            seconds += time.perf_counter() - started
    cost = None
    if opened and "cost" in config.parts:
        cost = measure_seconds(model, data)
        cost["memory"] = None if name is None else measure_memory(name, data)
    return {
        "name": data.name,
        "path": str(data.path),
        "photos": len(data.samples),
        **measurement.figures(),
        "cost": cost,
        "seconds_per_photo": seconds / opened if opened else None,
    }


def _galleries(config: TextConfig) -> dict[str, Gallery]:
    """What a sheet shows of one set: each strategy's "union" and "absent", and "click"."""
    galleries = {}
    for name in config.strategies:
        galleries[f"{name}, union"] = Gallery(figure="IoU of the union")
        galleries[f"{name}, absent"] = Gallery(figure="score, absent phrase", sides=("highest",))
    if "click" in config.parts:
        galleries["auto, click"] = Gallery(figure="gain of a click")
    return galleries


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}.text",
        description="Measure phrases, which are the file's own labels. On exhaustive photos, for "
        "each strategy: recall and precision of instances at IoU .5, AP50, AP and AR, precision, "
        "recall and F1 of presence with absent phrases, AUROC, calibration errors. Of the default "
        "strategy also, as parts: the IoU of the union and of single objects beside a wrong phrase "
        "and the whole image, one corrective click, exclusions, semantic maps, seconds and memory.",
    )
    add_common_options(parser)
    defaults = TextConfig()
    parser.add_argument(
        "--strategies",
        nargs="+",
        choices=STRATEGIES,
        default=list(defaults.strategies),
        metavar="S",
        help=f"what is compared: {', '.join(STRATEGIES)} (default: "
        f"{' '.join(defaults.strategies)}); 'components' is the baseline, connected components of "
        "the dense map; 'prompt' and 'rank' take seconds a photo",
    )
    parser.add_argument(
        "--parts",
        nargs="*",
        choices=PARTS,
        default=list(defaults.parts),
        metavar="P",
        help=f"what else: {', '.join(PARTS)} (default: all of them; none with --parts alone)",
    )
    parser.add_argument(
        "--absent",
        type=at_least(2),
        default=defaults.absent,
        metavar="N",
        help="absent phrases drawn for a photo, half of them the nearest in CLIP's text space to "
        f"what is there (default: {defaults.absent}; fewer where the file has fewer)",
    )
    parser.add_argument(
        "--drawn-only",
        action="store_true",
        help="ask only the present and the drawn absent phrases, not every label of the file: AP "
        "and AUROC then look better than they are",
    )
    parser.add_argument(
        "--no-prompt",
        action="store_true",
        help="leave out single objects by strategy 'prompt', to be done sooner",
    )
    parser.add_argument(
        "--no-presence",
        action="store_true",
        help="ask no absent phrase at all, to be done sooner",
    )
    parser.add_argument(
        "--ap-threshold",
        type=_probability,
        metavar="T",
        help="ask every phrase once more with threshold=T, for AP and AR alone, since the levels "
        "of a model cut off what COCO's AP would still rank (default: rank what they let through)",
    )
    add_sheet_option(
        parser,
        "IoU of the union, score of an absent phrase, for each strategy, and gain of a click",
    )
    parser.add_argument(
        "--per-label", action="store_true", help="also print a table with a row for every label"
    )
    return parser


def _probability(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}; wanted a number between 0 and 1")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code (2: the input or the model is at fault)."""
    parser = _parser()
    options = parser.parse_args(arguments)
    config = TextConfig(
        strategies=tuple(dict.fromkeys(options.strategies)),
        parts=tuple(dict.fromkeys(options.parts)),
        prompt=not options.no_prompt,
        presence=not options.no_presence,
        absent=options.absent,
        all_labels=not options.drawn_only,
        ap_threshold=options.ap_threshold,
        seed=options.seed,
    )
    shown: dict[str, Gallery] = {}

    def measure(model: Any, data: DataSet) -> dict[str, Any]:
        galleries = _galleries(config) if options.sheet else {}
        result = measure_set(model, data, config=config, galleries=galleries, name=options.model)
        shown.update({f"{data.name}, {name}": gallery for name, gallery in galleries.items()})
        write_sheet(options.sheet, shown, figure="figure")
        return result

    try:
        measured = measure_files(options, measure, protocol=asdict(config))
    except (BadInputError, TextSamError) as error:
        return complain(parser, error)
    show_strategies(measured, model=options.model, config=asdict(config))
    if "union" in config.parts:
        show_phrases(measured, model=options.model)
        show_single(measured, model=options.model)
    show_parts(measured, model=options.model)
    if options.per_label:
        show_labels(measured)
    return 0


if __name__ == "__main__":
    sys.exit(main())
