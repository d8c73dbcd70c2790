"""What became of each phrase: every mask that was considered, and which gate closed on it.

Strategies return a `PhraseAnswer` for each phrase; a `Segmentation` is made of the candidates that
no gate dropped, and keeps the answers so that it can be explained. Values only: no model is needed
to read them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from textsam.values.rle import RLE

__all__ = ["GATES", "Candidate", "Gate", "PhraseAnswer"]

Gate = Literal[
    "presence", "map", "exclusion", "background", "score", "quality", "duplicate", "overlap"
]

# Why a mask, or a whole phrase, is not in the result; the order is that in which they are asked.
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


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """A mask that was considered for a phrase.

    Attributes:
        rle: The mask, original pixels.
        score: Probability that the phrase describes it, 0 to 1; NaN if it was never scored.
        iou: Predicted IoU; NaN if unknown.
        stability: Stability score; NaN if unknown.
        evidence: The raw numbers behind `score`, by name ("map", "peak", "clip", ...).
        point: x, y in original pixels that the mask was asked with; None for none.
        low_res: (m, m) float16 logits of the decoder in the padded model frame, which a click goes
            on from; None where there are none.
        gate: What dropped it; None if it is in the result.
        reason: The gate's numbers in words, e.g. "score 0.21 < 0.50"; empty if it was not dropped.
    """

    rle: RLE
    score: float = math.nan
    iou: float = math.nan
    stability: float = math.nan
    evidence: Mapping[str, float] = field(default_factory=dict)
    point: tuple[float, float] | None = None
    low_res: NDArray[np.float16] | None = None
    gate: Gate | None = None
    reason: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class PhraseAnswer:
    """What a strategy says about one phrase.

    Attributes:
        phrase: What was asked; of a concept from another photo, its name.
        strategy: "auto", "prompt", "rank" or "like".
        presence: Probability that it is in the picture at all, 0 to 1; NaN if unknown.
        evidence: The raw numbers behind `presence`, by name.
        min_presence: Probability below which the answer is empty.
        min_score: Probability below which a mask is dropped.
        candidates: All that were considered, best score first; also those that were dropped.
        similarity: (h, w) float32 probability of the phrase at each place, on a grid that covers
            the picture without padding; None where the strategy makes none.
        gate: Why nothing is left; None if something is.
        reason: The gate's numbers in words.
    """

    phrase: str
    strategy: str
    presence: float = math.nan
    evidence: Mapping[str, float] = field(default_factory=dict)
    min_presence: float = 0.0
    min_score: float = 0.0
    candidates: tuple[Candidate, ...] = ()
    similarity: NDArray[np.float32] | None = None
    gate: Gate | None = None
    reason: str = ""

    @property
    def kept(self) -> tuple[Candidate, ...]:
        """The candidates that are in the result."""
        return tuple(c for c in self.candidates if c.gate is None)
