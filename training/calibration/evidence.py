"""Phrases that photos have and phrases that they lack, put to a strategy with its gates open.

The strategy is asked as a person asks it, one phrase at a time ("like": one example of the phrase
from another photo), but with default levels of 0: so every phrase gets to propose masks, and every
mask that geometry alone would keep (not a duplicate, not one that the decoder itself doubts) shows
its evidence.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textsam.errors import ImageError
from textsam.inference.strategies.concept import CONCEPT_CURVES
from textsam.inference.strategies.detect import DETECT_CURVES
from textsam.inference.strategies.like import LIKE_CURVES
from textsam.inference.strategies.map_points import DEFAULT_CURVES
from textsam.inference.strategies.naming import NAMING_CURVES
from textsam.inference.strategies.rank import RANK_CURVES
from textsam.values.calibration import Calibration
from textsam.values.judge import Curve, PhraseAnswer, StrategyCurves
from textsam.values.rle import RLE, rle_areas, rle_iou

from ..data import Sample
from ..evaluation.phrases.asking import PhraseMasks
from ..evaluation.phrases.examples import Examples
from ..evaluation.phrases.questions import Questions, Siblings, questions_of
from .choice import CalibrationSet

logger = logging.getLogger(__name__)

# The curves before there is a calibration. Of two masks of one thing the one with the higher score
# stays, so duplicates must not depend on an earlier fit.
_OPEN: Mapping[str, StrategyCurves] = {
    "auto": replace(DEFAULT_CURVES, min_presence=0.0, min_score=0.0),
    "detect": replace(DETECT_CURVES, min_presence=0.0, min_score=0.0),
    "concept": replace(CONCEPT_CURVES, min_presence=0.0, min_score=0.0),
    "rank": replace(RANK_CURVES, min_presence=0.0, min_score=0.0),
    "everything": replace(NAMING_CURVES, min_presence=0.0, min_score=0.0),
    "like": StrategyCurves(  # with or without a map
        presence=Curve(weights={}, bias=0.0),
        score=LIKE_CURVES.score,
        min_presence=0.0,
        min_score=0.0,
    ),
}
STRATEGIES = tuple(_OPEN)

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskEvidence:
    """A mask that a strategy proposed for a phrase."""

    evidence: Mapping[str, float]  # the inputs of its score
    right: bool  # whether more than half of its counted pixels belong to the phrase
    overlaps: NDArray[np.float64]  # (T,) IoU with each object of the phrase
    counted: bool = True  # false if most of it lies on pixels without a truth


@dataclass(frozen=True, kw_only=True, eq=False)
class PhraseEvidence:
    """A phrase that a photo was asked for, and the strategy's evidence for it."""

    source: str  # name of the photo's set
    photo: str  # the photo's name in it
    label: str  # the phrase
    present: bool  # whether the photo has it
    # Of an absent one, whether it was drawn for its likeness to one that is there.
    sibling: bool = False
    # The inputs of its presence; empty where the strategy proposed nothing.
    evidence: Mapping[str, float]
    objects: int = 0  # number of its objects
    masks: tuple[MaskEvidence, ...] = ()  # the proposed masks


@contextmanager
def open_gates(model: Any) -> Iterator[None]:
    """Within this context a model's strategies drop nothing for its probability."""
    own = model.calibration
    model.calibration = Calibration(strategies=_OPEN)
    try:
        yield
    finally:
        model.calibration = own


def gather(
    model: Any,
    sets: Sequence[CalibrationSet],
    *,
    strategies: Sequence[str],
    absent: int,
    seed: int,
    progress: Progress | None = None,
) -> dict[str, list[PhraseEvidence]]:
    """Ask every photo for what it has, and for some of what it lacks, by each strategy."""
    evidence: dict[str, list[PhraseEvidence]] = {strategy: [] for strategy in strategies}
    total, done = sum(len(item.samples) for item in sets), 0
    with open_gates(model):
        for item in sets:
            named = sorted({*item.labels, *(n for s in item.samples for n in s.absent)})
            siblings = None if model.clip is None else Siblings.from_clip(model.clip, named)
            examples = Examples(model, item.samples, seed=seed)
            for sample in item.samples:
                try:
                    image = sample.image()
                except ImageError as error:
                    logger.warning("left out a photo of %s: %s", item.name, error)
                else:
                    with model.open(image) as view:
                        questions = questions_of(
                            sample,
                            item.vocabulary(sample),
                            siblings,
                            defaultdict(int),
                            absent=absent,
                            seed=seed,
                        )
                        for strategy in strategies:
                            own = questions
                            if strategy == "like":
                                own = examples.answerable(questions, besides=sample.image_id)
                            segment = _segment_by(strategy, view, item, sample, own, examples)
                            evidence[strategy] += _ask_photo(segment, item, sample, own)
                done += 1
                if progress is not None:
                    progress(done, total)
    return evidence


def _segment_by(
    strategy: str,
    view: Any,
    item: CalibrationSet,
    sample: Sample,
    questions: Questions,
    examples: Examples,
) -> Callable[..., Any]:
    """What answers a phrase, `segment(text=...)`."""
    if strategy == "like":
        return partial(examples.segment, view, image_id=sample.image_id)
    if strategy != "everything":
        return partial(view.segment, strategy=strategy)
    # All labels compete in one call.
    asked = [p.label for p in questions.phrases] + [a.label for a in questions.absent]
    names = list(dict.fromkeys([*asked, *item.vocabulary(sample)]))
    answers = {answer.phrase: answer for answer in view.everything(names=names).answers}
    return lambda text: SimpleNamespace(answers=(answers[text],))


def _ask_photo(
    segment: Callable[..., Any], item: CalibrationSet, sample: Sample, questions: Questions
) -> Iterator[PhraseEvidence]:
    void = sample.void_mask()
    rows = [(p.label, True, False, p.rles, p.ignored) for p in questions.phrases]
    rows += [(a.label, False, a.sibling, (), void) for a in questions.absent]
    for label, present, sibling, objects, ignored in rows:
        # One phrase at a time, as a person asks.
        [answer] = segment(text=label).answers
        masks, count = _masks_of(answer, sample.size, objects, ignored)
        yield PhraseEvidence(
            source=item.name,
            photo=sample.image_id,
            label=label,
            present=present,
            sibling=sibling,
            evidence=dict(answer.evidence),
            objects=count,
            masks=masks,
        )


def _masks_of(
    answer: PhraseAnswer,
    size: tuple[int, int],
    objects: Sequence[RLE],
    ignored: NDArray[np.bool_],
) -> tuple[tuple[MaskEvidence, ...], int]:
    """The masks that no gate dropped, with their truth; and the number of objects."""
    proposed = PhraseMasks(
        size=size,
        rles=tuple(c.rle for c in answer.kept),
        scores=np.array([c.score for c in answer.kept], dtype=np.float64),
        presence=answer.presence,
    )
    matches = proposed.match(objects, ignored=ignored)
    overlaps = rle_iou(matches.rles, matches.truths)
    # `matches.counted` also holds for masks that match; a level decides that later.
    clear = 2 * rle_areas(matches.rles) >= rle_areas(proposed.rles)
    masks = tuple(
        MaskEvidence(
            evidence=dict(candidate.evidence),
            right=bool(matches.right[k]),
            overlaps=overlaps[k],
            counted=bool(clear[k]),
        )
        for k, candidate in enumerate(answer.kept)
    )
    return masks, matches.objects
