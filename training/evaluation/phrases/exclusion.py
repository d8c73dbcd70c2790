"""A phrase with an exclusion: what `exclude=` takes away, of the wrong pixels and of the right.

What a person does is measured: a phrase is asked, its answer spills over other things, and the
thing that it spills over most, a label that the photo has, is asked again as `exclude`. Where it
spills over nothing the present label nearest in CLIP's text space is excluded all the same: that
must cost no right pixel. Asked are the phrases of a photo and its absent siblings, of which every
pixel is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data import Sample
from ..figures.bootstrap import ratio_interval
from .asking import Asked
from .questions import Phrase, Questions, Siblings

__all__ = ["ExclusionItem", "ExclusionTally", "exclusion_means"]

Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class ExclusionItem:
    """Painted pixels of a phrase before and after an exclusion.

    `spilled` lie on the excluded label's truth and not on the phrase's own, `wrong` anywhere off
    the phrase's own truth, `right` on it. Pixels without a truth count nowhere.
    """

    image_id: str
    label: str
    excluded: str
    present: bool
    spilled_before: int
    spilled_after: int
    wrong_before: int
    wrong_after: int
    right_before: int
    right_after: int


class ExclusionTally:
    """The exclusions of a set so far; `items` has each phrase that was asked with one."""

    def __init__(self, siblings: Siblings | None) -> None:
        self.siblings = siblings
        self.items: list[ExclusionItem] = []

    def add_photo(self, asked: Asked, sample: Sample, questions: Questions) -> None:
        """Measure the phrases of an exhaustive photo, and its absent siblings."""
        nothing = np.zeros(sample.size, dtype=bool)
        void = sample.void_mask()
        for phrase in questions.phrases:
            others = [p for p in questions.phrases if p.label != phrase.label]
            counted = ~phrase.ignored
            self._measure(asked, sample, phrase.label, phrase.truth & counted, others, counted)
        for item in questions.absent:
            if item.sibling:
                self._measure(asked, sample, item.label, nothing, questions.phrases, ~void)

    def _measure(
        self,
        asked: Asked,
        sample: Sample,
        label: str,
        truth: Mask,
        others: Sequence[Phrase],
        counted: Mask,
    ) -> None:
        before = asked.ask(label).union & counted
        if not others or not before.any():
            return
        excluded = self._chosen(label, before & ~truth, others)
        answer: Any = asked.view
        after = answer.segment(text=label, exclude=excluded.label).mask & counted
        spill = excluded.truth & ~truth
        counts = [
            int(np.count_nonzero(mask & region))
            for region in (spill, ~truth, truth)
            for mask in (before, after)
        ]
        self.items.append(
            ExclusionItem(
                image_id=sample.image_id,
                label=label,
                excluded=excluded.label,
                present=bool(truth.any()),
                spilled_before=counts[0],
                spilled_after=counts[1],
                wrong_before=counts[2],
                wrong_after=counts[3],
                right_before=counts[4],
                right_after=counts[5],
            )
        )

    def _chosen(self, label: str, wrong: Mask, others: Sequence[Phrase]) -> Phrase:
        """The label that was painted over most; of none, the nearest in meaning."""
        spills = [int(np.count_nonzero(wrong & phrase.truth)) for phrase in others]
        if any(spills) or self.siblings is None:
            return others[int(np.argmax(spills))]
        nearest = self.siblings.nearest([label], [phrase.label for phrase in others])[0]
        return next(phrase for phrase in others if phrase.label == nearest)

    def figures(self, *, seed: int) -> dict[str, Any]:
        """See `exclusion_means`; and `items`."""
        return exclusion_means(self.items, seed=seed) | {"items": [asdict(i) for i in self.items]}


def exclusion_means(items: Sequence[ExclusionItem], *, seed: int = 0) -> dict[str, Any]:
    """Shares of pixels, over all phrases together.

    Returns:
        `phrases`; `spilling`, how many painted the excluded thing; `spilled_removed` (of the pixels
        on the excluded thing), `wrong_removed` (of all wrong pixels), `right_lost`, and the same
        with `_interval`. None without such pixels.
    """
    pairs = {
        "spilled_removed": [(i.spilled_before - i.spilled_after, i.spilled_before) for i in items],
        "wrong_removed": [(i.wrong_before - i.wrong_after, i.wrong_before) for i in items],
        "right_lost": [(i.right_before - i.right_after, i.right_before) for i in items],
    }
    means: dict[str, Any] = {
        "phrases": len(items),
        "spilling": sum(item.spilled_before > 0 for item in items),
    }
    for key, counts in pairs.items():
        total = sum(before for _, before in counts)
        means[key] = sum(change for change, _ in counts) / total if total else None
        rows = [(i.image_id, *count) for i, count in zip(items, counts, strict=True)]
        means[f"{key}_interval"] = ratio_interval(rows, seed=seed)
    return means
