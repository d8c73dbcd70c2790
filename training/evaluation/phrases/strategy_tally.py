"""Figures of one strategy on one set: instances, AP, presence, and calibration of its scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textsam.errors import PromptError, WeightsError
from textsam.values.rle import RLE

from ...data import Sample
from ..figures.average_precision import PhraseAP
from ..figures.case_sheets import Gallery, MaskCase
from ..figures.intervals import mean
from ..figures.matching import InstanceItem, instance_item, instance_means, masked_iou
from ..figures.probabilities import (
    Claim,
    PresencePair,
    calibration_error,
    presence_means,
    reliability,
    verdict_means,
)
from .asking import StrategyView
from .questions import Questions

Mask = NDArray[np.bool_]


class StrategyTally:
    """The answers of a strategy to the photos of a set so far.

    The gallery "STRATEGY, union" takes unions of phrases that are there, "STRATEGY, absent" the
    masks of absent ones, by their score.
    """

    def __init__(
        self,
        strategy: str,
        labels: Sequence[str],
        *,
        galleries: Mapping[str, Gallery] | None = None,
    ) -> None:
        self.strategy = strategy
        self.refused: str | None = None  # why the model does not have the strategy
        self.items: list[InstanceItem] = []  # of every phrase of an exhaustive photo
        self.pairs: list[PresencePair] = []  # every phrase asked of an exhaustive photo
        # Every mask of the present and the drawn absent phrases: its score, and whether more than
        # half of its counted pixels belong to the phrase.
        self.claims: list[Claim] = []
        self._unions = (galleries or {}).get(f"{strategy}, union")
        self._wrong_masks = (galleries or {}).get(f"{strategy}, absent")
        self._ap = PhraseAP(labels)

    def add_photo(
        self,
        view: StrategyView,
        sample: Sample,
        questions: Questions,
        *,
        loose: StrategyView | None = None,
    ) -> None:
        """Ask an exhaustive photo; a strategy that the model refuses is not asked again."""
        if self.refused is not None:
            return
        nothing, void = np.zeros(sample.size, dtype=bool), sample.void_mask()
        try:
            for p in questions.phrases:
                pair = PresencePair(image_id=sample.image_id, label=p.label, present=True)
                self._add(view, sample, pair, p.rles, p.truth, p.ignored, loose)
            for a in questions.absent:
                pair = PresencePair(image_id=sample.image_id, label=a.label, sibling=a.sibling)
                self._add(view, sample, pair, (), nothing, void, loose)
            # "prompt" costs a decoder run for every phrase, and says little about presence.
            for label in () if self.strategy == "prompt" else questions.rest:
                pair = PresencePair(image_id=sample.image_id, label=label, drawn=False)
                self._add(view, sample, pair, (), nothing, void, loose)
        except (PromptError, WeightsError) as error:
            if self.strategy == "auto":
                raise
            self.refused = str(error)

    def _add(
        self,
        view: StrategyView,
        sample: Sample,
        pair: PresencePair,
        rles: Sequence[RLE],
        truth: Mask,
        ignored: Mask,
        loose: StrategyView | None,
    ) -> None:
        """Ask for a phrase and match the answer with its objects."""
        answer = view.ask(pair.label)
        matches = answer.match(rles, ignored=ignored)
        score = None if math.isnan(answer.presence) else answer.presence
        self.pairs.append(replace(pair, score=score, answered=answer.answered))
        if pair.drawn:
            present = pair.present
            item = instance_item(sample.image_id, pair.label, matches, present=present)
            self.items.append(item)
            rows = zip(matches.scores, matches.right, matches.counted, strict=True)
            self.claims += [
                Claim(probability=float(score), true=bool(right))
                for score, right, counted in rows
                if counted and 0 <= score <= 1
            ]
            gallery = self._unions if present else self._wrong_masks
            if gallery is not None and (present or answer.answered):
                if present:
                    figure = masked_iou(answer.union, truth, exclude=ignored)
                else:
                    figure = float(np.nan_to_num(answer.scores[0]))
                gallery.add(MaskCase.of(figure, sample, answer.union, truth, pair.label))
        # Recall and precision are by the model's own levels; AP may ask with lower ones.
        if loose is not None:
            matches = loose.ask(pair.label).match(rles, ignored=ignored)
        self._ap.add(sample.image_id, pair.label, matches)

    def figures(self, *, seed: int) -> dict[str, Any]:
        """Everything, for the table and the JSON; `masks` is about their scores."""
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
