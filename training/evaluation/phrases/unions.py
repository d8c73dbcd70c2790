"""The union of a phrase's masks, and single objects; each beside a wrong phrase.

The union of all masks of the default strategy is compared with the union of all objects of that
name. Where exactly one object bears the name, strategy "prompt" (the paper's way, arXiv 2304.02643,
Section 7.5) is measured on it: its first mask, and the best of its three. Both are repeated with a
WRONG phrase, a label of the same file that this photo does not have, against the RIGHT phrase's
truth: a model that does not listen scores the same. The whole image as an answer is the floor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textsam.values.rle import decode_rle

from ...data import Sample
from ..figures.intervals import mean
from ..figures.matching import masked_iou
from .asking import StrategyView
from .questions import Phrase, ignored_pixels


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


class UnionTally:
    """The phrases of a set so far; `prompt` says whether strategy "prompt" is measured, too."""

    def __init__(self, *, prompt: bool) -> None:
        self.prompt = prompt
        self.items: list[TextItem] = []

    def add_photo(self, view: StrategyView, sample: Sample, phrases: Sequence[Phrase]) -> None:
        """Measure the phrases of a photo."""
        self.items += [measure_union(view, p, sample, prompt=self.prompt) for p in phrases]

    def figures(self) -> dict[str, Any]:
        """Means of phrases (of exhaustive photos), of single objects, of labels; and `items`."""
        single = [item for item in self.items if item.single]
        return {
            "means": union_means([item for item in self.items if item.exhaustive]),
            "single": {
                "not exhaustive": _single_means([i for i in single if not i.exhaustive]),
                "exhaustive": _single_means([i for i in single if i.exhaustive]),
            },
            "labels": label_means(self.items),
            "items": self.items,
        }


def measure_union(view: StrategyView, phrase: Phrase, sample: Sample, *, prompt: bool) -> TextItem:
    """Measure one phrase."""
    # Crowds of every label: the wrong phrase is measured against the same pixels.
    exclude = ignored_pixels(sample)

    def iou(mask: NDArray[np.bool_]) -> float:
        return masked_iou(mask, phrase.truth, exclude=exclude)

    def prompt_ious(text: str | None) -> list[float | None]:
        """IoU of each mask of strategy "prompt"; of no mask 0, and None without a question."""
        if text is None or not (prompt and phrase.single):
            return [None]
        answer = view.view.segment(text=text, strategy="prompt")
        return [iou(decode_rle(rle)) for rle in answer.rles] or [0.0]

    right = view.ask(phrase.label)
    wrong = None if phrase.wrong is None else view.ask(phrase.wrong)
    readings, wrong_readings = prompt_ious(phrase.label), prompt_ious(phrase.wrong)
    return TextItem(
        image_id=sample.image_id,
        label=phrase.label,
        wrong=phrase.wrong,
        exhaustive=sample.exhaustive,
        instances=len(phrase.rles),
        single=phrase.single,
        whole=iou(np.ones_like(phrase.truth)),
        union=iou(right.union),
        found=right.answered,
        union_wrong=None if wrong is None else iou(wrong.union),
        found_wrong=None if wrong is None else wrong.answered,
        top=readings[0],
        best=max((value for value in readings if value is not None), default=None),
        top_wrong=wrong_readings[0],
    )


def union_means(items: Sequence[TextItem]) -> dict[str, Any]:
    """Means over phrases of exhaustive photos, where a label that is not there is absent."""
    means: dict[str, Any] = {
        key: mean(getattr(item, key) for item in items) for key in ("union", "union_wrong", "whole")
    }
    return means | {
        "phrases": len(items),
        "present_answered": mean(i.found for i in items),
        "absent_empty": mean(None if i.found_wrong is None else not i.found_wrong for i in items),
    }


def label_means(items: Sequence[TextItem]) -> dict[str, dict[str, Any]]:
    """Both kinds of means for each label."""
    groups: dict[str, list[TextItem]] = {}
    for item in items:
        groups.setdefault(item.label, []).append(item)
    return {
        label: {
            **union_means([i for i in group if i.exhaustive]),
            "single": _single_means([i for i in group if i.single]),
        }
        for label, group in sorted(groups.items())
    }


def _single_means(items: Sequence[TextItem]) -> dict[str, Any]:
    """Means over single objects."""
    keys = ("top", "best", "top_wrong", "union", "union_wrong", "whole")
    means: dict[str, Any] = {key: mean(getattr(item, key) for item in items) for key in keys}
    return means | {"objects": len(items), "present_answered": mean(i.found for i in items)}
