"""What became of each phrase: every mask that was considered, and the gate that dropped it.

Strategies propose candidates with the numbers that they measured; `textsam.values.judge` decides
from those numbers which ones are in the result. A `Segmentation` keeps the answers, so that it can
be explained. Plain values: no model is needed to read them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from textsam.values.rle import RLE

__all__ = ["GATES", "Candidate", "Gate", "Levels", "MaskNumbers", "PhraseAnswer"]

Gate = Literal[
    "presence", "map", "exclusion", "background", "score", "quality", "duplicate", "overlap"
]

# Why a mask, or a whole phrase, is not in the result; in the order of the steps from the phrase to
# the result.
GATES: Mapping[Gate, str] = {
    "presence": "the phrase is probably not in the picture",
    "map": "no place of the picture resembles the phrase enough to propose a mask",
    "exclusion": "an excluded phrase fits better",
    "background": "a background phrase fits better",
    "score": "the phrase probably does not describe the mask",
    "quality": "the decoder itself doubts the mask's outline",
    "duplicate": "a better mask of the same phrase covers the same thing",
    "overlap": "another phrase fits these pixels better",
}

# The map is never searched below this probability, where nearly everything would be a region.
_LOWEST_PLACE = 0.1


@dataclass(frozen=True, kw_only=True)
class Levels:
    """The levels at which a phrase and its masks are judged.

    The four defaults belong to the model; a threshold takes their place as the properties say.

    Attributes:
        presence: Default probability below which a phrase is answered with nothing.
        score: Default probability below which a mask is dropped.
        quality: Default product of predicted IoU and mean probability below which a mask is
            dropped; 0 where the strategy has no map.
        place: Default probability from which a place of the map belongs to the phrase.
        max_covered: Share of a mask that better masks of the phrase may cover; 1 for any.
        threshold: `segment(threshold=...)`; None for the defaults.
        fixed: Whether the strategy drops nothing, so that a threshold changes nothing ("prompt").
    """

    presence: float = 0.0
    score: float = 0.0
    quality: float = 0.0
    place: float = 0.0
    max_covered: float = 1.0
    threshold: float | None = None
    fixed: bool = False

    def at(self, threshold: float | None) -> Self:
        """The same model's levels with another threshold, or with none."""
        return self if self.fixed else replace(self, threshold=threshold)

    @property
    def min_presence(self) -> float:
        """Probability below which the phrase is answered with nothing."""
        return self.presence if self.threshold is None else self.threshold

    @property
    def min_score(self) -> float:
        """Probability below which a mask is dropped."""
        return self.score if self.threshold is None else self.threshold

    @property
    def min_quality(self) -> float:
        """Quality below which a mask is dropped."""
        # Who asks for less probable masks accepts rougher ones as well; never the other way round.
        return self.quality if self.threshold is None else min(self.quality, self.threshold)

    @property
    def min_place(self) -> float:
        """Probability from which a place of the map is part of a region."""
        if self.threshold is None:
            return self.place
        return min(self.place, max(self.threshold, _LOWEST_PLACE))


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskNumbers:
    """What a strategy measured of a mask; none of it depends on levels.

    Attributes:
        score: Probability that the phrase describes it, 0 to 1; NaN if it was never scored.
        quality: Predicted IoU times the mean probability of the phrase's map inside; NaN where
            there is no map.
        ruled_out: A gate that closed whatever the levels are, and the reason in words: it repeats a
            better mask, is a fragment at the border of a tile, or lost its pixels to other phrases.
            None if none did.
        rival: The gate "exclusion" or "background", the log odds of the phrase, and the higher or
            lower ones of the best phrase that competes with it; None without competition.
        excluded: Share of its pixels that an excluded phrase wins, 0 to 1.
    """

    score: float = math.nan
    quality: float = math.nan
    ruled_out: tuple[Gate, str] | None = None
    rival: tuple[Gate, float, float] | None = None
    excluded: float = 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate(MaskNumbers):
    """A mask that was considered for a phrase.

    Attributes:
        rle: The mask, original pixels.
        iou: Predicted IoU; NaN if unknown.
        stability: Stability score; NaN if unknown.
        evidence: The raw numbers behind `score`, by name ("map", "peak", "clip", ...).
        point: x, y in original pixels of the point prompt that gave the mask; None for none.
        low_res: (m, m) float16 logits of the decoder in the padded model frame, with which a click
            continues; None where there are none.
        gate: What dropped it; None if it is in the result.
        reason: The gate's numbers in words, e.g. "score 0.21 < 0.50"; empty if it was not dropped.
    """

    rle: RLE
    iou: float = math.nan
    stability: float = math.nan
    evidence: Mapping[str, float] = field(default_factory=dict)
    point: tuple[float, float] | None = None
    # float16: dialogues keep these logits, and decoding again does not need more digits.
    low_res: NDArray[np.float16] | None = None
    gate: Gate | None = None
    reason: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class PhraseAnswer:
    """What a strategy found for one phrase.

    Attributes:
        phrase: The phrase; for a concept from another photo, its name.
        strategy: "auto", "prompt", "rank" or "like".
        presence: Probability that it is in the picture at all, 0 to 1; NaN if unknown.
        evidence: The raw numbers behind `presence`, by name.
        rivaled: Presence of what is left of the phrase after excluded ("exclusion") and background
            phrases ("background") have won their places; empty without competition.
        best_place: Highest probability of the map after the competition; NaN without a map.
        levels: The levels that it was judged by.
        searched: Whether masks were looked for; they are not where the phrase is absent.
        candidates: All that were considered, best score first; also those that were dropped.
        forgotten: Highest score of the masks that were dropped for their score and that
            `candidates` leaves out to save memory; minus infinity if none is left out.
        dependent: Whether it depends on more than its own numbers: on the answers of tiles, or on
            other phrases that competed for its pixels.
        similarity: (h, w) float32 probability of the phrase at each place, on a grid that covers
            the picture without padding; None where the strategy makes none.
        gate: Why nothing is left; None if something is.
        reason: The gate's numbers in words.
    """

    phrase: str
    strategy: str
    presence: float = math.nan
    evidence: Mapping[str, float] = field(default_factory=dict)
    rivaled: Mapping[Gate, float] = field(default_factory=dict)
    best_place: float = math.nan
    levels: Levels = field(default_factory=Levels)
    searched: bool = False
    candidates: tuple[Candidate, ...] = ()
    forgotten: float = -math.inf
    dependent: bool = False
    similarity: NDArray[np.float32] | None = None
    gate: Gate | None = None
    reason: str = ""

    @property
    def kept(self) -> tuple[Candidate, ...]:
        """The candidates that are in the result."""
        return tuple(c for c in self.candidates if c.gate is None)
