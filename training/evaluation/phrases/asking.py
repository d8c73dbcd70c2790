"""The strategies that are compared, asked in one way: each phrase of a photo once.

Beside the strategies of `ImageView.segment` there is `components`, the baseline: the connected
components of the phrase's dense map above the model's threshold, as in the study in
`shared/design/TINY.md`. It has neither decoder nor masked CLIP, so it shows what they add.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from textsam.errors import require
from textsam.values.rle import RLE, decode_rle, encode_masks, merge_rles

__all__ = ["STRATEGIES", "Answer", "Asked", "AskedView", "Found", "dense_components"]

Mask = NDArray[np.bool_]

STRATEGIES = ("auto", "prompt", "rank", "components")

# Regions of the map below this many pixels are specks of the interpolation, not answers: one cell
# (8 x 8) of the map of a 512-px model on a 512-px photo. Leaving them in would only flatter whoever
# is compared with the baseline.
_LEAST_COMPONENT = 64


class Answer(Protocol):
    """What `view.segment` gives back: a `Segmentation`."""

    @property
    def rles(self) -> Sequence[RLE]:
        """K masks, best first where the strategy ranks."""

    @property
    def scores(self) -> NDArray[np.float32]:
        """(K,) probability that the phrase describes the mask; NaN if unknown."""

    @property
    def presence(self) -> Mapping[str, float]:
        """Probability that the phrase is there; without it if the model does not say."""


class AskedView(Protocol):
    """What of `textsam.inference.view.ImageView` is asked here."""

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the photo."""

    def segment(self, *, text: str, strategy: str, **options: float) -> Answer:
        """Masks of one phrase; the one option is `threshold`."""

    def text_map(self, phrase: str) -> NDArray[np.float32]:
        """(H, W) probability of a phrase at each pixel."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """What a strategy says about a phrase of a photo.

    Attributes:
        size: (H, W).
        rles: Masks with at least a pixel, best score first.
        scores: (K,) float64 probability that the phrase describes the mask; NaN if unknown.
        presence: Probability that the phrase is there; NaN if the strategy does not say.
    """

    size: tuple[int, int]
    rles: tuple[RLE, ...]
    scores: NDArray[np.float64]
    presence: float

    @property
    def union(self) -> Mask:
        """(H, W) bool, all masks together."""
        return decode_rle(merge_rles(self.rles, self.size))

    @property
    def answered(self) -> bool:
        """Whether a pixel was painted."""
        return bool(self.rles)


class Asked:
    """An open photo that answers each phrase once by one strategy: several figures ask the same.

    Strategy "prompt" gives three readings of ONE object; the first, its answer, stands for it.
    """

    def __init__(
        self,
        view: AskedView,
        strategy: str,
        *,
        level: float = 0.5,
        threshold: float | None = None,
    ) -> None:
        """Wrap a view.

        Args:
            view: The photo.
            strategy: One of `STRATEGIES`.
            level: Probability from which a place of the map counts, for "components".
            threshold: The option of `segment`, for the others; the model's own levels by default.
        """
        if strategy not in STRATEGIES:
            raise ValueError(f"strategy is {strategy!r}; it can be {', '.join(STRATEGIES)}")
        self.view = view
        self.strategy = strategy
        self.level = level
        self.options = {} if threshold is None else {"threshold": threshold}
        self._answers: dict[str, Found] = {}

    def ask(self, phrase: str) -> Found:
        """What the strategy finds.

        Raises:
            PromptError: The model does not have the strategy.
            WeightsError: It lacks what the strategy needs.
        """
        if phrase not in self._answers:
            self._answers[phrase] = self._ask(phrase)
        return self._answers[phrase]

    def _ask(self, phrase: str) -> Found:
        if self.strategy == "components":
            return dense_components(self.view.text_map(phrase), level=self.level)
        answer = self.view.segment(text=phrase, strategy=self.strategy, **self.options)
        presence = answer.presence.get(phrase, math.nan)
        rles, scores = list(answer.rles), np.asarray(answer.scores, dtype=np.float64)
        if self.strategy == "prompt":
            rles, scores = rles[:1], scores[:1]
        return _found(self.view.size, rles, scores, presence)


def dense_components(probability: NDArray[np.float32], *, level: float) -> Found:
    """The baseline: 8-connected regions of a map (H, W) from `level` up, scored by their mean."""
    label = require("scipy.ndimage", "eval").label
    numbered, count = label(probability >= level, structure=np.ones((3, 3)))
    sizes = np.bincount(numbered.ravel(), minlength=count + 1)
    sums = np.bincount(numbered.ravel(), weights=probability.ravel(), minlength=count + 1)
    kept = [i for i in range(1, count + 1) if sizes[i] >= _LEAST_COMPONENT]
    masks = numbered[None] == np.array(kept, dtype=numbered.dtype)[:, None, None]
    scores = sums[kept] / sizes[kept] if kept else np.zeros(0)
    size = (probability.shape[0], probability.shape[1])
    return _found(size, encode_masks(masks), scores, float(probability.max()))


def _found(
    size: tuple[int, int],
    rles: Sequence[RLE],
    scores: NDArray[np.float64],
    presence: float,
) -> Found:
    order = np.argsort(-np.nan_to_num(scores, nan=-np.inf), kind="stable")
    kept = [int(index) for index in order if not rles[index].is_empty]
    return Found(
        size=size,
        rles=tuple(rles[index] for index in kept),
        scores=scores[kept],
        presence=presence,
    )
