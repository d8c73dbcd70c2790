"""Figures of one strategy on one set: instances, AP, presence, and what its scores are worth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from textsam.errors import PromptError, WeightsError

from ...data import Sample
from ..clicks.protocol import masked_iou
from ..figures.average_precision import Detections
from ..figures.matching import InstanceItem, Matches, instance_item, instance_means, match_masks
from ..figures.presence import PresencePair, presence_means, verdict_means
from ..figures.reliability import Claim, calibration_error, reliability
from ..figures.sheet import Gallery
from .asking import Asked, Found
from .questions import Questions

__all__ = ["StrategyTally"]


class StrategyTally:
    """What a strategy said about the photos of a set so far.

    Attributes:
        strategy: Its name.
        refused: Why the model does not have it; None if it has.
        items: Counts of every phrase of an exhaustive photo.
        pairs: Every phrase asked of an exhaustive photo.
        claims: Every mask of the present and the drawn absent phrases: its score, and whether more
            than half of its counted pixels belong to the phrase.
        galleries: "union" takes the best and the worst unions of phrases that are there, "absent"
            the masks of absent ones, by their score.
    """

    def __init__(
        self,
        strategy: str,
        labels: Sequence[str],
        *,
        galleries: Mapping[str, Gallery] | None = None,
    ) -> None:
        self.strategy = strategy
        self.refused: str | None = None
        self.items: list[InstanceItem] = []
        self.pairs: list[PresencePair] = []
        self.claims: list[Claim] = []
        self.galleries = galleries or {}
        self._detections = Detections(labels)

    def add_photo(
        self, asked: Asked, sample: Sample, questions: Questions, *, loose: Asked | None = None
    ) -> None:
        """Ask an exhaustive photo; a strategy that the model refuses is asked no more.

        Args:
            asked: The open photo.
            sample: Its truth.
            questions: What to ask.
            loose: The photo with the levels down, for AP; `asked` by default.

        Raises:
            PromptError: The model does not have the default strategy.
            WeightsError: It lacks what that needs.
        """
        if self.refused is not None:
            return
        try:
            self._ask(asked, sample, questions, loose or asked)
        except (PromptError, WeightsError) as error:
            if self.strategy == "auto":
                raise
            self.refused = str(error)

    def _ask(self, asked: Asked, sample: Sample, questions: Questions, loose: Asked) -> None:
        for phrase in questions.phrases:
            found = asked.ask(phrase.label)
            matches = match_masks(found, phrase.rles, ignored=phrase.ignored)
            self._add(sample, phrase.label, found, matches, present=True)
            if loose is not asked:
                ranked = loose.ask(phrase.label)
                matches = match_masks(ranked, phrase.rles, ignored=phrase.ignored)
            self._detections.add(sample.image_id, phrase.label, matches)
            if "union" in self.galleries:
                union = found.union
                iou = masked_iou(union, phrase.truth, exclude=phrase.ignored)
                self.galleries["union"].add(iou, sample, union, phrase.truth, phrase.label)
        siblings = {item.label: item.sibling for item in questions.absent}
        # "prompt" costs a decoder run for every phrase, and says little about presence.
        rest = () if self.strategy == "prompt" else questions.rest
        void = sample.void_mask()
        for label in (*siblings, *rest):
            found = asked.ask(label)
            matches = match_masks(found, (), ignored=void)
            drawn, sibling = label in siblings, siblings.get(label, False)
            self._add(sample, label, found, matches, present=False, drawn=drawn, sibling=sibling)
            if drawn and found.answered and "absent" in self.galleries:
                worst = float(np.nan_to_num(found.scores[0]))
                self.galleries["absent"].add(worst, sample, found.union, void & False, label)
            if loose is not asked:
                matches = match_masks(loose.ask(label), (), ignored=void)
            self._detections.add(sample.image_id, label, matches)

    def _add(
        self,
        sample: Sample,
        label: str,
        found: Found,
        matches: Matches,
        *,
        present: bool,
        drawn: bool = True,
        sibling: bool = False,
    ) -> None:
        self.pairs.append(
            PresencePair(
                image_id=sample.image_id,
                label=label,
                present=present,
                score=None if math.isnan(found.presence) else found.presence,
                answered=found.answered,
                drawn=drawn,
                sibling=sibling,
            )
        )
        if not drawn:
            return
        self.items.append(instance_item(sample.image_id, label, matches, present=present))
        self.claims += [
            Claim(probability=float(score), true=bool(right))
            for score, right, counted in zip(
                matches.scores, matches.right, matches.counted, strict=True
            )
            if counted and 0 <= score <= 1
        ]

    def figures(self, *, seed: int) -> dict[str, Any]:
        """Everything, for the table and the JSON.

        Returns:
            `instances` (see `instance_means`), `ap` (see `Detections.figures`), `presence` (see
            `presence_means`), `verdicts` (see `verdict_means`), `masks` (`count`, `right`, `ece`,
            `reliability` of their scores), `refused`, and `items`.
        """
        right = [claim.true for claim in self.claims]
        return {
            "refused": self.refused,
            "instances": instance_means(self.items, seed=seed),
            "ap": self._detections.figures(),
            "presence": presence_means(self.pairs),
            "verdicts": verdict_means(self.pairs, seed=seed),
            "masks": {
                "count": len(right),
                "right": float(np.mean(right)) if right else None,
                "ece": calibration_error(self.claims),
                "reliability": reliability(self.claims),
            },
            "items": [asdict(item) for item in self.items],
        }
