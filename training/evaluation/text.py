"""Phrases: IoU of what the right phrase and a wrong phrase find, and whether they find anything.

    python -m training.evaluation.text dev/voc_val.parquet dev/coco_mval.parquet --json F.json

A phrase is a label that the file's people gave. Where a photo is exhaustive, the union of all
masks of the default strategy is compared with the union of all objects of that name. Where exactly
one object bears the name, strategy "prompt" (the paper's way, arXiv 2304.02643, Section 7.5) is
measured on it: its first mask, and the best of its three. Both are repeated with a WRONG phrase, a
label of the same file that this photo does not have, against the RIGHT phrase's truth: a model that
does not listen scores the same. The whole image as an answer is the floor. Presence (`presence.py`)
asks an exhaustive photo for every label of the file and compares what is there with what is not.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from textsam.errors import TextSamError
from textsam.rle import RLE, decode_rle, merge_rles

from ..data import Sample
from .presence import PresencePair, presence_means
from .protocol import draw_wrong, masked_iou, mean, seeded_rng
from .sheet import Gallery, add_sheet_option, write_sheet
from .table import BadInputError, DataSet, add_common_options, complain, measure_files, progress
from .text_tables import show_labels, show_phrases, show_single

__all__ = ["NAMELESS", "Phrase", "TextConfig", "TextItem", "main", "measure_set"]

Mask = NDArray[np.bool_]

# Labels that stand for "the thing that was annotated" and say nothing (GrabCut's only one).
NAMELESS = frozenset({"object"})


class Answer(Protocol):
    """What `view.segment` gives back: a `Segmentation`."""

    @property
    def masks(self) -> Mask:
        """(K, H, W), best first where the strategy ranks."""

    @property
    def mask(self) -> Mask:
        """(H, W), the union."""

    @property
    def presence(self) -> Mapping[str, float]:
        """Probability that the phrase is there; without it if the model does not say."""


class AskedView(Protocol):
    """The one method of `textsam.inference.view.ImageView` that is measured here."""

    def segment(self, *, text: str, strategy: str) -> Answer:
        """Masks of one phrase."""


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Settings: whether strategy "prompt" and presence are measured, and the seed of the wrong."""

    prompt: bool = True
    presence: bool = True
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Phrase:
    """A label that a photo has.

    Attributes:
        label: The phrase.
        instances: Objects of this label that are not `ignore`.
        single: Whether there is exactly one, and no `ignore` object of this label beside it.
        truth: (H, W) bool, union of its objects.
        wrong: A label that the photo does not have; None if the file has none.
    """

    label: str
    instances: int
    single: bool
    truth: Mask
    wrong: str | None


@dataclass(frozen=True, kw_only=True)
class TextItem:
    """The figures of one phrase in one photo; None where something was not asked.

    `union`, `union_wrong`, `found` and `found_wrong` are of strategy "auto" (found: whether it
    painted a pixel), `top`, `best` and `top_wrong` of strategy "prompt".
    """

    image_id: str
    label: str
    wrong: str | None
    exhaustive: bool
    instances: int
    single: bool
    whole: float
    union: float
    found: bool
    union_wrong: float | None
    found_wrong: bool | None
    top: float | None
    best: float | None
    top_wrong: float | None


class _Asked:
    """An open photo that answers each phrase once: several figures ask for the same."""

    def __init__(self, view: AskedView) -> None:
        self.view = view
        self._answers: dict[str, tuple[Mask, float | None]] = {}

    def union(self, phrase: str) -> Mask:
        """(H, W), what strategy "auto" finds."""
        return self._ask(phrase)[0]

    def presence(self, phrase: str) -> float | None:
        """What the result says about the phrase being there; None if it says nothing."""
        return self._ask(phrase)[1]

    def readings(self, phrase: str) -> Mask:
        """(K, H, W), what strategy "prompt" finds, best first."""
        return self.view.segment(text=phrase, strategy="prompt").masks

    def _ask(self, phrase: str) -> tuple[Mask, float | None]:
        if phrase not in self._answers:
            answer = self.view.segment(text=phrase, strategy="auto")
            self._answers[phrase] = (answer.mask, answer.presence.get(phrase))
        return self._answers[phrase]


def measure_set(
    model: Any, data: DataSet, *, config: TextConfig, gallery: Gallery | None = None
) -> dict[str, Any]:
    """Measure one file.

    Args:
        model: A `TextSAM`: `open(image)` gives a context manager with `segment`.
        data: The photos; wrong phrases come from all labels of the file.
        config: The settings.
        gallery: Takes the best and worst unions, for a picture sheet.

    Returns:
        `name`, `path`, `photos`, `skipped` (objects or phrases by reason), `means` (over phrases of
        exhaustive photos), `single` (over single objects, apart for exhaustive photos and others),
        `presence` (see `presence_means`), `labels` (means per label), `seconds_per_photo`, `items`
        and `presence_items`.
    """
    items: list[TextItem] = []
    pairs: list[PresencePair] = []
    skipped = {"objects without a name": 0, "phrases wholly void": 0, "phrases not single": 0}
    seconds, opened = 0.0, 0
    for sample in progress(data.samples, data.name):
        started = time.perf_counter()
        exclude = _excluded(sample)
        phrases = _phrases(sample, data.labels, exclude, skipped, config=config)
        absent = _absent(sample, data.labels) if config.presence and sample.exhaustive else []
        if phrases or absent:
            opened += 1
            with model.open(sample.image()) as opened_view:
                view = _Asked(opened_view)
                for phrase in phrases:
                    items.append(_measure(view, phrase, sample, exclude, config=config))
                    if gallery is not None:
                        union = view.union(phrase.label)
                        gallery.add(items[-1].union, sample, union, phrase.truth, phrase.label)
                if config.presence and sample.exhaustive:
                    pairs += _presence_pairs(view, sample, phrases, absent)
            seconds += time.perf_counter() - started
    return {
        "name": data.name,
        "path": str(data.path),
        "photos": len(data.samples),
        "skipped": skipped,
        "means": _union_means([item for item in items if item.exhaustive]),
        "single": _single_by_origin(items),
        "presence": presence_means(pairs),
        "labels": _label_means(items),
        "seconds_per_photo": seconds / opened if opened else None,
        "items": [asdict(item) for item in items],
        "presence_items": [asdict(pair) for pair in pairs],
    }


def _absent(sample: Sample, vocabulary: Iterable[str]) -> list[str]:
    """Labels that the photo does not have, not even as `ignore`."""
    return sorted(set(vocabulary) - {o.label for o in sample.objects} - NAMELESS)


def _presence_pairs(
    view: _Asked, sample: Sample, phrases: Sequence[Phrase], absent: Sequence[str]
) -> list[PresencePair]:
    """Every phrase of the photo and every absent one; none if the model says no presence."""
    asked = {phrase.label: True for phrase in phrases} | dict.fromkeys(absent, False)
    return [
        PresencePair(image_id=sample.image_id, label=label, present=present, score=score)
        for label, present in asked.items()
        if (score := view.presence(label)) is not None
    ]


def _excluded(sample: Sample) -> Mask:
    """Pixels without a truth: the void, and objects marked `ignore` (crowds, say)."""
    ignored = merge_rles([o.rle for o in sample.objects if o.ignore], sample.size)
    return sample.void_mask() | decode_rle(ignored)


def _phrases(
    sample: Sample,
    vocabulary: Iterable[str],
    exclude: Mask,
    skipped: dict[str, int],
    *,
    config: TextConfig,
) -> list[Phrase]:
    """What to ask of a photo, in the order of its objects.

    A label with `ignore` objects only is neither present nor absent. In a photo that is not
    exhaustive only single objects are asked for: the rest of the phrase may be unlabelled.
    """
    rles: dict[str, list[RLE]] = {}
    for o in sample.objects:
        if o.label in NAMELESS:
            skipped["objects without a name"] += 1
        elif not o.ignore:
            rles.setdefault(o.label, []).append(o.rle)
    crowded = {o.label for o in sample.objects if o.ignore}
    absent = set(vocabulary) - {o.label for o in sample.objects} - NAMELESS
    wrong = draw_wrong(list(rles), absent, seeded_rng(config.seed, sample.image_id))
    phrases = []
    for label, own in rles.items():
        truth = decode_rle(merge_rles(own, sample.size))
        single = len(own) == 1 and label not in crowded
        if not (truth & ~exclude).any():
            skipped["phrases wholly void"] += 1
        elif not (single or sample.exhaustive):
            skipped["phrases not single"] += 1
        else:
            phrases.append(
                Phrase(
                    label=label,
                    instances=len(own),
                    single=single,
                    truth=truth,
                    wrong=wrong[label],
                )
            )
    return phrases


def _measure(
    view: _Asked, phrase: Phrase, sample: Sample, exclude: Mask, *, config: TextConfig
) -> TextItem:
    def iou(mask: Mask) -> float:
        return masked_iou(mask, phrase.truth, exclude=exclude)

    def read(text: str) -> list[float]:
        return [iou(mask) for mask in view.view.segment(text=text, strategy="prompt").masks] or [
            0.0
        ]

    union = view.union(phrase.label)
    union_wrong = readings = wrong_readings = None
    if phrase.wrong is not None:
        union_wrong = view.union(phrase.wrong)
    if config.prompt and phrase.single:
        readings = read(phrase.label)
        wrong_readings = None if phrase.wrong is None else read(phrase.wrong)
    return TextItem(
        image_id=sample.image_id,
        label=phrase.label,
        wrong=phrase.wrong,
        exhaustive=sample.exhaustive,
        instances=phrase.instances,
        single=phrase.single,
        whole=iou(np.ones_like(phrase.truth)),
        union=iou(union),
        found=bool(union.any()),
        union_wrong=None if union_wrong is None else iou(union_wrong),
        found_wrong=None if union_wrong is None else bool(union_wrong.any()),
        top=None if readings is None else readings[0],
        best=None if readings is None else max(readings),
        top_wrong=None if wrong_readings is None else wrong_readings[0],
    )


def _union_means(items: Sequence[TextItem]) -> dict[str, Any]:
    """Means over phrases of exhaustive photos, where a label that is not there is absent."""
    return {
        "phrases": len(items),
        "union": mean(i.union for i in items),
        "union_wrong": mean(i.union_wrong for i in items),
        "whole": mean(i.whole for i in items),
        "present_answered": mean(i.found for i in items),
        "absent_empty": mean(None if i.found_wrong is None else not i.found_wrong for i in items),
    }


def _single_means(items: Sequence[TextItem]) -> dict[str, Any]:
    """Means over single objects."""
    return {
        "objects": len(items),
        "top": mean(i.top for i in items),
        "best": mean(i.best for i in items),
        "top_wrong": mean(i.top_wrong for i in items),
        "union": mean(i.union for i in items),
        "union_wrong": mean(i.union_wrong for i in items),
        "whole": mean(i.whole for i in items),
        "present_answered": mean(i.found for i in items),
    }


def _single_by_origin(items: Sequence[TextItem]) -> dict[str, dict[str, Any]]:
    """Single objects of photos that are not exhaustive, and of those that are."""
    origins = {"not exhaustive": False, "exhaustive": True}
    return {
        origin: _single_means([i for i in items if i.single and i.exhaustive is exhaustive])
        for origin, exhaustive in origins.items()
    }


def _label_means(items: Sequence[TextItem]) -> dict[str, dict[str, Any]]:
    groups: dict[str, list[TextItem]] = {}
    for item in items:
        groups.setdefault(item.label, []).append(item)
    return {
        label: {
            **_union_means([i for i in group if i.exhaustive]),
            "single": _single_means([i for i in group if i.single]),
        }
        for label, group in sorted(groups.items())
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}.text",
        description="Measure phrases: IoU of the union of all masks per phrase where the photo is "
        "exhaustive, IoU of the top mask and the best of three for single objects, the same for a "
        "wrong phrase, the whole image as a baseline, how often present and absent phrases are "
        "answered, and the AUROC of presence. Phrases are the file's own labels.",
    )
    add_common_options(parser)
    parser.add_argument(
        "--no-prompt",
        action="store_true",
        help="leave out strategy 'prompt', to be done sooner",
    )
    parser.add_argument(
        "--no-presence",
        action="store_true",
        help="leave out presence, which asks every exhaustive photo for every label of its file",
    )
    add_sheet_option(parser, "IoU of the union")
    parser.add_argument(
        "--per-label", action="store_true", help="also print a table with a row for every label"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code (2: the input or the model is at fault)."""
    parser = _parser()
    options = parser.parse_args(arguments)
    config = TextConfig(
        prompt=not options.no_prompt, presence=not options.no_presence, seed=options.seed
    )
    galleries: dict[str, Gallery] = {}

    def measure(model: Any, data: DataSet) -> dict[str, Any]:
        gallery = galleries.setdefault(data.name, Gallery()) if options.sheet else None
        result = measure_set(model, data, config=config, gallery=gallery)
        write_sheet(options.sheet, galleries, figure="union IoU")
        return result

    try:
        measured = measure_files(options, measure, protocol=asdict(config))
    except (BadInputError, TextSamError) as error:
        return complain(parser, error)
    show_phrases(measured, model=options.model)
    show_single(measured, model=options.model)
    if options.per_label:
        show_labels(measured)
    return 0


if __name__ == "__main__":
    sys.exit(main())
