"""A phrase with an exclusion: what `exclude=` takes away, of the wrong pixels and of the right.

What a person does is measured: a phrase is asked, its answer spills over other things, and the
thing that it spills over most, a label that the photo has, is asked again as `exclude`. Where it
spills over nothing the present label nearest in CLIP's text space is excluded all the same: that
must cost no right pixel. Asked are the phrases of a photo and its absent siblings, of which every
pixel is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data import Sample
from ..figures.intervals import ratio_interval
from .asking import StrategyView
from .questions import Phrase, Questions, Siblings

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
    """The exclusions of a set so far; `items` has each phrase that had one."""

    def __init__(self, siblings: Siblings | None) -> None:
        self.siblings = siblings
        self.items: list[ExclusionItem] = []

    def add_photo(self, view: StrategyView, sample: Sample, questions: Questions) -> None:
        """Measure the phrases of an exhaustive photo, and its absent siblings."""
        nothing = np.zeros(sample.size, dtype=bool)
        void = sample.void_mask()
        for phrase in questions.phrases:
            others = [p for p in questions.phrases if p.label != phrase.label]
            counted = ~phrase.ignored
            self._measure(view, sample, phrase.label, phrase.truth & counted, others, counted)
        for item in questions.absent:
            if item.sibling:
                self._measure(view, sample, item.label, nothing, questions.phrases, ~void)

    def _measure(
        self,
        view: StrategyView,
        sample: Sample,
        label: str,
        truth: Mask,
        others: Sequence[Phrase],
        counted: Mask,
    ) -> None:
        # The view keeps its answers: other figures ask for the same phrase.
        before = view.ask(label).union & counted
        if not others or not before.any():
            return
        excluded = self._phrase_to_exclude(label, before & ~truth, others)
        after = view.view.segment(text=label, exclude=excluded.label).mask & counted
        regions = {"spilled": excluded.truth & ~truth, "wrong": ~truth, "right": truth}
        counts = {
            f"{name}_{when}": int(np.count_nonzero(mask & region))
            for name, region in regions.items()
            for when, mask in (("before", before), ("after", after))
        }
        self.items.append(
            ExclusionItem(
                image_id=sample.image_id,
                label=label,
                excluded=excluded.label,
                present=bool(truth.any()),
                **counts,
            )
        )

    def _phrase_to_exclude(self, label: str, wrong: Mask, others: Sequence[Phrase]) -> Phrase:
        """The label that was painted over most; of none, the nearest in meaning."""
        spills = [int(np.count_nonzero(wrong & phrase.truth)) for phrase in others]
        if any(spills) or self.siblings is None:
            return others[int(np.argmax(spills))]
        nearest = self.siblings.nearest([label], [phrase.label for phrase in others])[0]
        return next(phrase for phrase in others if phrase.label == nearest)

    def figures(self, *, seed: int) -> dict[str, Any]:
        """See `exclusion_means`; and `items`."""
        return exclusion_means(self.items, seed=seed) | {"items": self.items}


def exclusion_means(items: Sequence[ExclusionItem], *, seed: int = 0) -> dict[str, Any]:
    """Shares of pixels, over all phrases together.

    Returns:
        `phrases`; `spilling`, how many painted the excluded thing; `spilled_removed` (of the pixels
        on the excluded thing), `wrong_removed` (of all wrong pixels), `right_lost`, and the same
        with `_interval`. None without such pixels.
    """
    means: dict[str, Any] = {
        "phrases": len(items),
        "spilling": sum(item.spilled_before > 0 for item in items),
    }
    for key in ("spilled_removed", "wrong_removed", "right_lost"):
        name = key.partition("_")[0]
        rows = []
        for item in items:
            before, after = getattr(item, f"{name}_before"), getattr(item, f"{name}_after")
            rows.append((item.image_id, before - after, before))
        total = sum(before for *_, before in rows)
        means[key] = sum(change for _, change, _ in rows) / total if total else None
        means[f"{key}_interval"] = ratio_interval(rows, seed=seed)
    return means
