"""The strategies that are compared, with one interface: each phrase of a photo is asked once.

Beside the strategies of `ImageView.segment` there is `components`, the baseline: the connected
components of the phrase's map above the model's threshold. It has neither mask decoder nor masked
CLIP, so it shows what these add.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textsam.errors import require
from textsam.values.rle import RLE, decode_rle, encode_masks, merge_rles

from ..figures.matching import Matches, match_masks

STRATEGIES = ("auto", "prompt", "detect", "concept", "rank", "components")

# Regions of the map below this many pixels are specks of the interpolation, not answers: one cell
# (8 x 8) of the map of a 512-px model on a 512-px photo. Leaving them in would only flatter the
# strategies that are compared with the baseline.
_MIN_COMPONENT = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class PhraseMasks:
    """The answer of a strategy to a phrase of a photo."""

    size: tuple[int, int]  # (H, W)
    rles: tuple[RLE, ...]  # masks with at least a pixel, best score first
    # (K,) float64 probability that the phrase describes the mask; NaN if unknown.
    scores: NDArray[np.float64]
    presence: float  # probability that the phrase is there; NaN if the strategy gives none

    @property
    def union(self) -> NDArray[np.bool_]:
        """(H, W) bool, all masks together."""
        return decode_rle(merge_rles(self.rles, self.size))

    @property
    def answered(self) -> bool:
        """Whether a pixel was painted."""
        return bool(self.rles)

    def match(self, truths: Sequence[RLE], *, ignored: NDArray[np.bool_]) -> Matches:
        """Match the masks with the objects of the phrase, see `match_masks`."""
        return match_masks(self.rles, self.scores, truths, ignored=ignored)


class StrategyView:
    """An open photo that is asked by one strategy, each phrase once, since several figures ask it.

    Strategy "prompt" gives three masks of ONE object; the first stands for its answer. The level is
    the probability from which a place of the map counts, for "components"; the threshold that of
    `segment`, for the others, where the model's own levels are the default.
    """

    def __init__(
        self,
        view: Any,
        strategy: str,
        *,
        level: float = 0.5,
        threshold: float | None = None,
        segment: Callable[..., Any] | None = None,
    ) -> None:
        if strategy not in STRATEGIES:
            raise ValueError(f"strategy is {strategy!r}; it can be {', '.join(STRATEGIES)}")
        self.view = view
        self.strategy = strategy
        self.level = level
        self._options = {} if threshold is None else {"threshold": threshold}
        self._segment = view.segment if segment is None else segment
        self._answers: dict[str, PhraseMasks] = {}

    def ask(self, phrase: str) -> PhraseMasks:
        """Masks of a phrase; a strategy that the model lacks is a `TextSamError`."""
        if phrase not in self._answers:
            self._answers[phrase] = self._ask_anew(phrase)
        return self._answers[phrase]

    def _ask_anew(self, phrase: str) -> PhraseMasks:
        if self.strategy == "components":
            return dense_components(self.view.text_map(phrase), level=self.level)
        answer = self._segment(text=phrase, strategy=self.strategy, **self._options)
        rles, scores = list(answer.rles), np.asarray(answer.scores, dtype=np.float64)
        # Three masks of one object: counting them as instances would cost it precision.
        if self.strategy == "prompt":
            rles, scores = rles[:1], scores[:1]
        presence = answer.presence.get(phrase, math.nan)
        return _ranked(self.view.size, rles, scores, presence)


def dense_components(probability: NDArray[np.float32], *, level: float) -> PhraseMasks:
    """The baseline: 8-connected regions of a map (H, W) from `level` up, scored by their mean."""
    label = require("scipy.ndimage", "eval").label
    numbered, count = label(probability >= level, structure=np.ones((3, 3)))
    sizes = np.bincount(numbered.ravel(), minlength=count + 1)
    sums = np.bincount(numbered.ravel(), weights=probability.ravel(), minlength=count + 1)
    kept = [i for i in range(1, count + 1) if sizes[i] >= _MIN_COMPONENT]
    # All components at once, (K, H, W).
    masks = numbered[None] == np.array(kept, dtype=numbered.dtype)[:, None, None]
    scores = sums[kept] / sizes[kept] if kept else np.zeros(0)
    size = (probability.shape[0], probability.shape[1])
    return _ranked(size, encode_masks(masks), scores, float(probability.max()))


def _ranked(
    size: tuple[int, int], rles: Sequence[RLE], scores: NDArray[np.float64], presence: float
) -> PhraseMasks:
    """Best score first, empty masks left out."""
    order = np.argsort(-np.nan_to_num(scores, nan=-np.inf), kind="stable")
    kept = [int(index) for index in order if not rles[index].is_empty]
    return PhraseMasks(
        size=size, rles=tuple(rles[index] for index in kept), scores=scores[kept], presence=presence
    )
