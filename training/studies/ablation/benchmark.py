"""The scores of a trained variant, object by object, on a fixed subset of some sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from textsam.inference.model import TextSAM

from ...data import Sample
from ...evaluation.clicks.click_runs import ClickConfig, measure_clicks
from ...evaluation.data_sets import DataSet, evenly_spaced, read_sets
from ...evaluation.figures.intervals import Score
from ...evaluation.phrases.questions import NAMELESS
from ...evaluation.text import TextConfig, measure_set

# Figures of each kind of variant, in the table's order.
FIGURES: Mapping[str, tuple[str, ...]] = {
    "core": ("1 click", "3 clicks", "box"),
    "pathway": ("text", "wrong text"),
}
_CLICKS = 3


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What variants are measured on."""

    clicked: Sequence[DataSet]  # sets whose objects are clicked and boxed, one object of a photo
    asked: Sequence[DataSet]  # sets whose single objects are asked by name

    @classmethod
    def read(
        cls, clicked: Sequence[Path], asked: Sequence[Path], *, objects: int, phrases: int
    ) -> Benchmark:
        """Choose photos, spread evenly over each file, until there are enough objects."""
        share = max(1, objects // max(1, len(clicked)))
        spoken = max(1, phrases // max(1, len(asked)))
        return cls(
            clicked=[_first(s, share, _has_objects) for s in read_sets(clicked)],
            asked=[_first(s, spoken, _single_names) for s in read_sets(asked)],
        )

    def about(self, kind: str) -> dict[str, Any]:
        """JSON values that distinguish this benchmark from another one, for a kind of variant."""
        sets = self.clicked if kind == "core" else self.asked
        return {data.name: [sample.image_id for sample in data.samples] for data in sets}

    def measure(self, model: TextSAM, kind: str) -> dict[str, list[Score]]:
        """Figure -> a score for each object."""
        scores: dict[str, list[Score]] = {figure: [] for figure in FIGURES[kind]}
        for data in self.clicked if kind == "core" else self.asked:
            rows = _clicks(model, data) if kind == "core" else _phrases(model, data)
            for photo, name, values in rows:
                for figure, value in zip(FIGURES[kind], values, strict=True):
                    score = Score(photo=f"{data.name}/{photo}", object=name, value=value)
                    scores[figure].append(score)
        return scores


def _clicks(model: TextSAM, data: DataSet) -> list[tuple[str, str, tuple[float, ...]]]:
    config = ClickConfig(clicks=_CLICKS, columns=(1, _CLICKS), per_photo=1)
    return [
        (i.image_id, str(i.object), (i.iou[0], i.iou[:_CLICKS][-1], i.box))
        for i in measure_clicks(model, data, config=config)["items"]
    ]


def _phrases(model: TextSAM, data: DataSet) -> list[tuple[str, str, tuple[float, ...]]]:
    config = TextConfig(strategies=("auto",), presence=False, parts=("union",))
    return [
        (i.image_id, i.label, (i.top, i.top_wrong))
        for i in measure_set(model, data, config=config)["items"]
        if i.top is not None and i.top_wrong is not None
    ]


def _first(data: DataSet, objects: int, count: Callable[[Sample], int]) -> DataSet:
    """As many photos as have at most `objects` to measure, spread evenly over those with any."""
    useful = [(sample, count(sample)) for sample in data.samples if count(sample)]
    for photos in range(min(objects, len(useful)), 0, -1):
        chosen = [useful[index] for index in evenly_spaced(len(useful), photos)]
        if sum(own for _, own in chosen) <= objects:
            return replace(data, samples=tuple(sample for sample, _ in chosen))
    return replace(data, samples=())


def _has_objects(sample: Sample) -> int:
    return int(any(not o.ignore for o in sample.objects))


def _single_names(sample: Sample) -> int:
    """Names that exactly one object of the photo bears."""
    names = [o.label for o in sample.objects]
    ignored = {o.label for o in sample.objects if o.ignore}
    return sum(names.count(name) == 1 for name in set(names) - ignored - NAMELESS)
