"""Variants trained one after the other and measured, object by object, on a fixed subset.

What is done is kept, and what fails stops no other variant.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from textsam.errors import TextSamError
from textsam.inference.model import TextSAM
from textsam.values.files import write_atomically

from ...data import Sample
from ...evaluation.clicks.click_runs import ClickConfig, measure_clicks
from ...evaluation.command import json_text
from ...evaluation.data_sets import DataSet, evenly_spaced, read_sets
from ...evaluation.figures.intervals import Score
from ...evaluation.phrases.questions import NAMELESS
from ...evaluation.text import TextConfig, measure_set
from .variant_training import PhotoPool, towers_digest, train_core, train_pathway
from .variants import CoreSettings, PathwaySettings, Variant

logger = logging.getLogger(__name__)

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
            for photo, name, values in (_clicks if kind == "core" else _phrases)(model, data):
                for own, value in zip(scores.values(), values, strict=True):
                    own.append(Score(photo=f"{data.name}/{photo}", object=name, value=value))
        return scores


def _clicks(model: TextSAM, data: DataSet) -> list[tuple[str, str, tuple[float, ...]]]:
    config = ClickConfig(clicks=_CLICKS, columns=(1, _CLICKS), per_photo=1)
    return [
        (i.image_id, str(i.object), (i.iou[0], i.iou[:_CLICKS][-1], i.box))
        for i in measure_clicks(model, data, config=config)["items"]
    ]


def _phrases(model: TextSAM, data: DataSet) -> list[tuple[str, str, tuple[float, ...]]]:
    config = TextConfig(strategies=("auto",), absent=0, parts=("union",))
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


class StoppedError(Exception):
    """A signal ended the run; the same command continues the variant from its checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a variant."""

    variant: Variant
    key: str  # names its run and its result, see `Variant.key`
    seconds: float = 0.0  # of training in the process that ended it, and of measuring
    # In the SAM's image encoder, and of all that was trained.
    parameters: Mapping[str, int] = field(default_factory=dict)
    loss: float | None = None  # mean of the run's last record
    # Figure -> a score for each object; empty if it failed.
    scores: Mapping[str, Sequence[Score]] = field(default_factory=dict)
    failure: str | None = None  # why it has no scores


def run_variants(
    variants: Sequence[Variant],
    *,
    pool: PhotoPool,
    benchmark: Benchmark,
    folder: Path,
    report: Callable[[Sequence[Outcome]], None] = lambda outcomes: None,
) -> list[Outcome]:
    """Train and measure what has no result yet.

    Raises:
        StoppedError: On SIGTERM or SIGINT, after a checkpoint.
    """
    (folder / "results").mkdir(parents=True, exist_ok=True)
    outcomes: list[Outcome] = []
    for number, variant in enumerate(variants, start=1):
        title = f"{number}/{len(variants)} {variant.group}: {variant.name}"
        try:
            key = _key(variant, pool, benchmark)
        except TextSamError as error:
            key, failure = "", str(error)
        else:
            # Two variants with equal settings have one key: what failed is not tried twice.
            failure = next((o.failure for o in outcomes if o.key == key and o.failure), "")
        path = folder / "results" / f"{key}.json"
        if failure:
            outcomes.append(Outcome(variant=variant, key=key, failure=failure))
        elif path.exists():
            logger.info("%s (%s): there is a result", title, key)
            outcomes.append(_read(path, variant, key))
        else:
            logger.info("%s (%s): training", title, key)
            outcomes.append(_attempt(variant, key, pool, benchmark, folder))
        report(outcomes)
    return outcomes


def _key(variant: Variant, pool: PhotoPool, benchmark: Benchmark) -> str:
    others: dict[str, Any] = {"data": pool.about(), "measured": benchmark.about(variant.kind)}
    if isinstance(variant.settings, PathwaySettings):
        others["towers"] = towers_digest(variant.settings.core)
    return variant.key(others)


def _attempt(
    variant: Variant, key: str, pool: PhotoPool, benchmark: Benchmark, folder: Path
) -> Outcome:
    """Train and measure one variant; whatever goes wrong with it is its outcome."""
    started = time.monotonic()
    run, settings = folder / "runs" / key, variant.settings
    try:
        if isinstance(settings, CoreSettings):
            model, result = train_core(settings, pool, folder=run, identity=key)
        else:
            cache = folder / "embeddings"
            model, result = train_pathway(settings, pool, folder=run, cache=cache, identity=key)
        if result.reason != "done":
            raise StoppedError(f"{variant.group}: {variant.name} stopped by {result.reason}")
        logger.info("trained in %.0f s; measuring", time.monotonic() - started)
        scores = benchmark.measure(model, variant.kind)
    except StoppedError:
        raise
    except Exception as error:
        logger.exception("%s: %s failed", variant.group, variant.name)
        return Outcome(variant=variant, key=key, failure=f"{type(error).__name__}: {error}")
    learned = model.sam if variant.kind == "core" else model.pathway
    parameters = [] if learned is None else list(learned.parameters())
    outcome = Outcome(
        variant=variant,
        key=key,
        seconds=time.monotonic() - started,
        parameters={
            "encoder": sum(p.numel() for p in model.sam.image_encoder.parameters()),
            "trained": sum(p.numel() for p in parameters if p.requires_grad),
        },
        loss=result.figures.get("loss"),
        scores=scores,
    )
    text = json_text(asdict(outcome) | {"torch": torch.__version__})
    write_atomically(folder / "results" / f"{key}.json", text.encode())
    return outcome


def _read(path: Path, variant: Variant, key: str) -> Outcome:
    content: dict[str, Any] = json.loads(path.read_bytes())
    scores = {name: [Score(**s) for s in own] for name, own in content["scores"].items()}
    known = {name: content[name] for name in ("seconds", "parameters", "loss")}
    return Outcome(variant=variant, key=key, scores=scores, **known)
