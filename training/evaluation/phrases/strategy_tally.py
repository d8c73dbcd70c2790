"""Figures of one strategy on one set: instances, AP, presence, and calibration of its scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from textsam.errors import PromptError, WeightsError

from ...data import Sample
from ..figures.average_precision import PhraseAP
from ..figures.case_sheets import Gallery, MaskCase
from ..figures.intervals import mean
from ..figures.matching import InstanceItem, Matches, instance_item, instance_means, masked_iou
from ..figures.probabilities import (
    Claim,
    PresencePair,
    calibration_error,
    presence_means,
    reliability,
    verdict_means,
)
from .asking import PhraseMasks, StrategyView
from .questions import Questions


class StrategyTally:
    """The answers of a strategy to the photos of a set so far.

    Attributes:
        strategy: Its name.
        refused: Why the model does not have it; None if it has.
        items: Counts of every phrase of an exhaustive photo.
        pairs: Every phrase asked of an exhaustive photo.
        claims: Every mask of the present and the drawn absent phrases: its score, and whether more
            than half of its counted pixels belong to the phrase.
        galleries: "union" takes unions of phrases that are there, "absent" the masks of absent
            ones, by their score.
    """

    def __init__(
        self,
        strategy: str,
        labels: Sequence[str],
        *,
        galleries: Mapping[str, Gallery[MaskCase]] | None = None,
    ) -> None:
        self.strategy = strategy
        self.refused: str | None = None
        self.items: list[InstanceItem] = []
        self.pairs: list[PresencePair] = []
        self.claims: list[Claim] = []
        self.galleries = galleries or {}
        self._ap = PhraseAP(labels)

    def add_photo(
        self,
        view: StrategyView,
        sample: Sample,
        questions: Questions,
        *,
        loose: StrategyView | None = None,
    ) -> None:
        """Ask an exhaustive photo; a strategy that the model refuses is not asked again.

        Raises:
            PromptError: The model does not have the default strategy.
            WeightsError: It lacks what that needs.
        """
        if self.refused is not None:
            return
        try:
            self._add_present(view, sample, questions, loose or view)
            self._add_absent(view, sample, questions, loose or view)
        except (PromptError, WeightsError) as error:
            if self.strategy == "auto":
                raise
            self.refused = str(error)

    def _add_present(
        self, view: StrategyView, sample: Sample, questions: Questions, loose: StrategyView
    ) -> None:
        # Recall and precision by the model's own levels; AP may ask with lower ones.
        for phrase in questions.phrases:
            answer = view.ask(phrase.label)
            matches = answer.match(phrase.rles, ignored=phrase.ignored)
            self._add(sample, phrase.label, answer, matches, present=True)
            if loose is not view:
                matches = loose.ask(phrase.label).match(phrase.rles, ignored=phrase.ignored)
            self._ap.add(sample.image_id, phrase.label, matches)
            if "union" in self.galleries:
                union, truth = answer.union, phrase.truth
                iou = masked_iou(union, truth, exclude=phrase.ignored)
                self.galleries["union"].add(MaskCase.of(iou, sample, union, truth, phrase.label))

    def _add_absent(
        self, view: StrategyView, sample: Sample, questions: Questions, loose: StrategyView
    ) -> None:
        siblings = {item.label: item.sibling for item in questions.absent}
        # "prompt" costs a decoder run for every phrase, and says little about presence.
        rest = () if self.strategy == "prompt" else questions.rest
        void = sample.void_mask()
        for label in (*siblings, *rest):
            answer = view.ask(label)
            matches = answer.match((), ignored=void)
            drawn, sibling = label in siblings, siblings.get(label, False)
            self._add(sample, label, answer, matches, present=False, drawn=drawn, sibling=sibling)
            if drawn and answer.answered and "absent" in self.galleries:
                score = float(np.nan_to_num(answer.scores[0]))
                nothing = np.zeros_like(void)
                case = MaskCase.of(score, sample, answer.union, nothing, label)
                self.galleries["absent"].add(case)
            if loose is not view:
                matches = loose.ask(label).match((), ignored=void)
            self._ap.add(sample.image_id, label, matches)

    def _add(
        self,
        sample: Sample,
        label: str,
        answer: PhraseMasks,
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
                score=None if math.isnan(answer.presence) else answer.presence,
                answered=answer.answered,
                drawn=drawn,
                sibling=sibling,
            )
        )
        if not drawn:
            return
        self.items.append(instance_item(sample.image_id, label, matches, present=present))
        rows = zip(matches.scores, matches.right, matches.counted, strict=True)
        self.claims += [
            Claim(probability=float(score), true=bool(right))
            for score, right, counted in rows
            if counted and 0 <= score <= 1
        ]

    def figures(self, *, seed: int) -> dict[str, Any]:
        """Everything, for the table and the JSON.

        Returns:
            `instances` (see `instance_means`), `ap` (see `PhraseAP.figures`), `presence` (see
            `presence_means`), `verdicts` (see `verdict_means`), `masks` (`count`, `right`, `ece`,
            `reliability` of their scores), `refused`, and `items`.
        """
        return {
            "refused": self.refused,
            "instances": instance_means(self.items, seed=seed),
            "ap": self._ap.figures(),
            "presence": presence_means(self.pairs),
            "verdicts": verdict_means(self.pairs, seed=seed),
            "masks": {
                "count": len(self.claims),
                "right": mean(claim.true for claim in self.claims),
                "ece": calibration_error(self.claims),
                "reliability": reliability(self.claims),
            },
            "items": self.items,
        }
