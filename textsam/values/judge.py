"""The verdict on phrases and masks: the one place that decides what is in a result.

    answer = judge(PhraseAnswer(phrase="wheel", presence=0.9, levels=levels, ...))
    if answer.gate is None:  # worth looking for masks
        answer = judge(replace(answer, candidates=proposals, searched=True))

Strategies measure (`MaskNumbers`, presence by a `Curve`) and propose; `judge` compares what they
measured with `Levels`. It is a pure function, so an explanation asks it again at other levels
instead of running the model. What does not depend on levels arrives as `MaskNumbers.ruled_out`.
The `PhraseAnswer` keeps every mask that was considered and the gate that dropped it; a
`Segmentation` keeps the answers, so that it can be explained. Plain values: no model is needed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from textsam.values.rle import RLE, rle_area, rle_common_areas

Gate = Literal[
    "presence",
    "map",
    "exclusion",
    "background",
    "score",
    "quality",
    "colour",
    "duplicate",
    "overlap",
]

# A gate, the log odds of the phrase, and those of the best one that competes with it.
Rival: TypeAlias = tuple[Gate, float, float]

# Why a mask, or a whole phrase, is not in the result; in the order of the steps from the phrase to
# the result.
GATES: Mapping[Gate, str] = {
    "presence": "the phrase is probably not in the picture",
    "map": "no place of the picture resembles the phrase enough to propose a mask",
    "exclusion": "an excluded phrase fits better",
    "background": "a background phrase fits better",
    "score": "the phrase probably does not describe the mask",
    "quality": "the decoder itself doubts the mask's outline",
    "colour": "the thing has another colour",
    "duplicate": "a better mask of the same phrase covers the same thing",
    "overlap": "another phrase fits these pixels better",
}

# `segment(threshold=...)`: one probability for all phrases, or one by phrase.
Threshold: TypeAlias = float | Mapping[str, float] | None


def threshold_of(threshold: Threshold, phrase: str) -> float | None:
    """The threshold of a phrase; None for the calibration's levels."""
    return threshold.get(phrase) if isinstance(threshold, Mapping) else threshold


# The map is never searched below this probability, where nearly everything would be a region.
_LOWEST_PLACE = 0.1


@dataclass(frozen=True, kw_only=True)
class Curve:
    """From evidence about a phrase or a mask to a probability: sigmoid(bias + weights x evidence).

    Platt scaling (Platt 1999, "Probabilistic outputs for support vector machines"): a logistic
    regression that was fitted on labelled photos.

    Attributes:
        weights: Weight of each evidence by name; evidence without a weight is ignored.
        bias: Log odds if all evidence is zero.
    """

    weights: Mapping[str, float]
    bias: float

    def probability(self, evidence: Mapping[str, float]) -> float:
        """Probability, 0 to 1; a ValueError if evidence with a weight is missing or NaN."""
        total = self.bias
        for name, weight in self.weights.items():
            value = evidence.get(name, math.nan)
            if math.isnan(value):
                raise ValueError(
                    f"the calibration needs evidence {name!r}; there is {sorted(evidence)}"
                )
            total += weight * value
        # Clipped, because exp overflows beyond 709; at 60 a float64 cannot be told from 1 anyway.
        return 1 / (1 + math.exp(-max(-60.0, min(60.0, total))))


@dataclass(frozen=True, kw_only=True)
class PhraseLevels:
    """Default levels of one phrase, learnt from photos with and without it."""

    min_presence: float
    min_score: float


@dataclass(frozen=True, kw_only=True)
class StrategyCurves:
    """The curves and default levels of a strategy.

    Attributes:
        presence: Probability that a phrase is in the picture at all.
        score: Probability that a phrase describes a mask.
        min_presence: Default presence below which a phrase gets no masks.
        min_score: Default score below which a mask is dropped.
        phrases: Levels that take the place of the two for some phrases, by the plain phrase in
            lower case (`plain_phrase`).
        phrase: The phrase whose own levels these are; None for the common ones.
    """

    presence: Curve
    score: Curve
    min_presence: float = 0.5
    min_score: float = 0.5
    phrases: Mapping[str, PhraseLevels] = field(default_factory=dict)
    phrase: str | None = None

    def of(self, *keys: str) -> Self:
        """The same curves with the levels of the first of these phrases that has its own."""
        key = next((key for key in keys if key in self.phrases), None)
        if key is None:
            return self
        own = self.phrases[key]
        return replace(self, min_presence=own.min_presence, min_score=own.min_score, phrase=key)

    def levels(self, threshold: float | None, **others: float) -> Levels:
        """The levels that they give, with a threshold and other levels of the strategy."""
        common = {"presence": self.min_presence, "score": self.min_score, **others}
        return Levels(**common, threshold=threshold, own=self.phrase is not None)  # type: ignore[arg-type]


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
        own: Whether `presence` and `score` are the phrase's own, from a calibration per phrase.
    """

    presence: float = 0.0
    score: float = 0.0
    quality: float = 0.0
    place: float = 0.0
    max_covered: float = 1.0
    threshold: float | None = None
    fixed: bool = False
    own: bool = False

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
            better mask, is a fragment at the border of a tile, has another colour, or lost its
            pixels to other phrases. None if none did.
        rival: The gate "exclusion" or "background", the log odds of the phrase, and the higher or
            lower ones of the best phrase that competes with it; None without competition.
        excluded: Share of its pixels that an excluded phrase wins, 0 to 1.
    """

    score: float = math.nan
    quality: float = math.nan
    ruled_out: tuple[Gate, str] | None = None
    rival: Rival | None = None
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
        strategy: "auto", "prompt", "detect", "concept", "rank" or "like".
        chosen: Why the model answered by that strategy; empty where it was asked for by name.
        presence: Probability that it is in the picture at all, 0 to 1; NaN if unknown.
        evidence: The raw numbers behind `presence`, by name.
        rivaled: Presence of what is left of the phrase after excluded ("exclusion") and background
            phrases ("background") have won their places, and of its best mask's colour ("colour");
            empty without competition and colours.
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
    chosen: str = ""
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


_MAX_EXCLUDED = 0.5  # share of a mask that excluded phrases may win; the rest is then cut out

Verdict = tuple[Gate | None, str]
_PASSED: Verdict = (None, "")


def judge(answer: PhraseAnswer, levels: Levels | None = None) -> PhraseAnswer:
    """Decide what is left of a phrase: set the gate and the reason of each mask and of the whole.

    Verdicts that are already there are replaced; `Candidate.ruled_out` stays, and the order of the
    candidates, too. If levels limit how much of a mask better ones may cover, the candidates must
    come best score first. `levels` are others than the answer's own.
    """
    levels = answer.levels if levels is None else levels
    phrase = _judge_phrase(answer, levels)
    candidates: list[Candidate] = []
    kept: list[Candidate] = []
    for item in answer.candidates:
        # A mask's own numbers come first: they say more than that the phrase is absent.
        gate, reason = judge_mask(item, levels)
        if gate is None and levels.max_covered < 1 and _is_covered(item, kept, levels.max_covered):
            gate, reason = "duplicate", "it shares most pixels with better masks"
        if gate is None:
            gate, reason = phrase
        item = replace(item, gate=gate, reason=reason)
        candidates.append(item)
        if gate is None:
            kept.append(item)
    answer = replace(answer, levels=levels, candidates=tuple(candidates), gate=None, reason="")
    gate, reason = phrase if phrase[0] is not None or kept else closed_gate(answer)
    if not (candidates or answer.searched or phrase[0]):
        gate = None  # undecided: no mask has been looked for yet
    return replace(answer, gate=gate, reason=reason)


def is_exact(answer: PhraseAnswer, levels: Levels) -> bool:
    """Whether `judge(answer, levels)` leaves what the strategy would leave if asked with `levels`.

    Not where the strategy would look for masks in other places, or for the first time.
    """
    own = answer.levels
    if answer.strategy == "like" and levels.min_quality != own.min_quality:
        return False  # presence is measured on the masks of sufficient quality
    if answer.presence < levels.min_presence or levels == own:
        return True
    if answer.dependent or not answer.searched or levels.min_place != own.min_place:
        return False
    return answer.forgotten < levels.min_score


def judge_mask(mask: MaskNumbers, levels: Levels) -> Verdict:
    """The gate that drops a mask for its own numbers, and the reason; None and "" if none does."""
    if mask.rival is not None:
        gate, own, other = mask.rival
        if other > own:
            return gate, f"log odds {own:.1f} < {other:.1f}"
    # Before the score: a mask that repeats a better one is no further object, however it scores.
    if mask.ruled_out is not None:
        return mask.ruled_out
    # Comparisons with NaN are false: what was not measured passes.
    if mask.score < levels.min_score:
        return "score", f"score {mask.score:.2f} < {levels.min_score:.2f}"
    if mask.quality < levels.min_quality:
        return "quality", f"predicted IoU x map {mask.quality:.2f} < {levels.min_quality:.2f}"
    if mask.excluded > _MAX_EXCLUDED:
        return "exclusion", f"{mask.excluded:.0%} of it is rather what is excluded"
    return _PASSED


def is_present(presence: float, levels: Levels) -> bool:
    """Whether a phrase of this presence is taken to be in the picture; unknown (NaN) is."""
    return not presence < levels.min_presence


def _judge_phrase(answer: PhraseAnswer, levels: Levels) -> Verdict:
    """The gate that closes on a phrase as a whole, before its masks are looked at."""
    if not is_present(answer.presence, levels):
        return "presence", f"presence {answer.presence:.2f} < {levels.min_presence:.2f}"
    for gate, presence in answer.rivaled.items():
        if presence < levels.min_presence:
            return gate, f"presence of what is left {presence:.2f} < {levels.min_presence:.2f}"
    if answer.searched and not answer.candidates:
        return "map", _why_no_place(answer, levels)
    return _PASSED


def _why_no_place(answer: PhraseAnswer, levels: Levels) -> str:
    if math.isnan(answer.best_place):
        return "there are no automatic masks"
    return f"the best place has {answer.best_place:.2f}; regions start at {levels.min_place:.2f}"


def _is_covered(item: Candidate, kept: Sequence[Candidate], max_covered: float) -> bool:
    """Whether better masks cover too much of a mask, or it covers too much of one of them."""
    if not kept:
        return False
    rles = [other.rle for other in kept]
    common = rle_common_areas([item.rle], rles)[0]
    covers = max(area / rle_area(rle) for area, rle in zip(common, rles, strict=True))
    return bool(max(common.sum() / rle_area(item.rle), covers) > max_covered)


def closed_gate(answer: PhraseAnswer) -> Verdict:
    """The gate that left nothing of a judged phrase, and its numbers; None and "" if one is left.

    Where each mask was dropped for a reason of its own, that of the best scored one. A duplicate is
    passed over: it lost to a better mask, which another gate then dropped.
    """
    if answer.kept:
        return _PASSED
    if answer.gate is not None and answer.gate != "duplicate":
        return answer.gate, answer.reason
    items = [item for item in answer.candidates if item.gate != "duplicate"] or answer.candidates
    if items:
        best = max(items, key=lambda item: -1.0 if math.isnan(item.score) else item.score)
        return best.gate, best.reason
    return answer.gate or "map", answer.reason


def best_first(answer: PhraseAnswer) -> PhraseAnswer:
    """The answer with the masks of the result in front, each group by falling score."""

    def place(item: Candidate) -> tuple[bool, float]:
        return item.gate is not None, math.inf if math.isnan(item.score) else -item.score

    return replace(answer, candidates=tuple(sorted(answer.candidates, key=place)))


def find_repeats(
    masks: NDArray[np.bool_], rejected: Sequence[str], *, max_covered: float
) -> list[str]:
    """Why masks of one phrase show what better ones show; "" for those that do not.

    Masks (N, h, w) in order of quality; `rejected` are reasons for which one is already known to
    repeat others, or ""; `max_covered` is the share of a mask that better ones may cover.
    """
    taken = np.zeros(masks.shape[1:], dtype=np.bool_)
    repeats = []
    for mask, reason in zip(masks, rejected, strict=True):
        covered = int((mask & taken).sum()) / max(1, int(mask.sum()))
        if not reason and covered > max_covered:
            reason = f"{covered:.0%} of it is covered by better masks"
        if not reason:
            # Also where another gate drops this mask: a worse mask of the same thing is no better.
            taken |= mask
        repeats.append(reason)
    return repeats
