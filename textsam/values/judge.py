"""The verdict on phrases and masks: the one place that decides what is in a result.

    answer = judge(PhraseAnswer(phrase="wheel", presence=0.9, levels=levels, ...))
    if answer.gate is None:  # worth looking for masks
        answer = judge(replace(answer, candidates=proposals, searched=True))

Strategies measure (`MaskNumbers`, presence) and propose; `judge` compares what they measured with
`Levels`. It is a pure function, so an explanation asks it again at other levels instead of running
the model. What does not depend on levels arrives as `MaskNumbers.ruled_out`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from textsam.values.candidates import Candidate, Gate, Levels, MaskNumbers, PhraseAnswer
from textsam.values.rle import rle_area, rle_common_areas

__all__ = [
    "best_first",
    "closed_gate",
    "find_repeats",
    "is_exact",
    "is_present",
    "judge",
    "judge_mask",
]

_MAX_EXCLUDED = 0.5  # share of a mask that excluded phrases may win; the rest is then cut out

Verdict = tuple[Gate | None, str]
_PASSED: Verdict = (None, "")


def judge(answer: PhraseAnswer, levels: Levels | None = None) -> PhraseAnswer:
    """Decide what is left of a phrase: set the gate and the reason of each mask and of the whole.

    Verdicts that are already there are replaced; `Candidate.ruled_out` stays.

    Args:
        answer: The phrase's numbers and, if masks were looked for, its candidates; if levels limit
            how much of a mask better ones may cover, best score first.
        levels: Other levels than the answer's own.

    Returns:
        The answer with these levels and the verdicts; candidates in the same order.
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

    Args:
        masks: (N, h, w) on any grid, in order of quality.
        rejected: N reasons for which a mask is already known to repeat others; "" for none.
        max_covered: Share of a mask that better masks may cover.
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
