"""Which gate closed on a phrase, by how much, and what to ask to get past it.

A phrase is answered with nothing when one gate closes on it as a whole, or on each of its masks.
Everything here is read off a `PhraseAnswer`; nothing is asked again.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from textsam.answers import GATES, Candidate, Gate, PhraseAnswer

__all__ = ["SweepStep", "advice", "closed_gate", "sentence", "sweep", "to_options"]

# Thresholds are advised with two decimals, rounded down so that they let through what they should.
_DECIMALS = 100


@dataclass(frozen=True, kw_only=True)
class SweepStep:
    """What would be left at a threshold.

    Attributes:
        threshold: Probability that phrases and masks must reach, as `segment(threshold=...)`.
        masks: Masks left.
        phrases: Phrases with a mask left.
        exact: Whether no gate kept masks from being looked for that this threshold would admit;
            else there may be more.
    """

    threshold: float
    masks: int
    phrases: int
    exact: bool


def closed_gate(answer: PhraseAnswer) -> tuple[Gate | None, str]:
    """The gate that left nothing of a phrase, and its numbers; None and "" if something is left.

    Where each mask was dropped for a reason of its own, the best scored one's counts. A duplicate
    is passed over: it lost to a better mask, which another gate then dropped.
    """
    if answer.kept:
        return None, ""
    if answer.gate is not None and answer.gate != "duplicate":
        return answer.gate, answer.reason
    items = [item for item in answer.candidates if item.gate != "duplicate"] or answer.candidates
    if items:
        best = max(items, key=lambda item: _known(item.score))
        return best.gate, best.reason
    return answer.gate or "map", answer.reason


def advice(answer: PhraseAnswer, *, opened: PhraseAnswer | None = None) -> dict[str, Any]:
    """Keywords of `segment` that get past the gate that closed on a phrase.

    Args:
        answer: What came out.
        opened: The same phrase asked with a low threshold, if it was; makes the advice exact.

    Returns:
        For example `{"threshold": 0.31}`; None as a value means to leave the option out. Empty if
        something is left of the phrase, or if there is nothing to advise.
    """
    gate, _ = closed_gate(answer)
    if gate in ("presence", "map", "score"):
        threshold = _admitting_threshold(answer, opened)
        if threshold is not None:
            return {"threshold": threshold}
        return {} if gate == "presence" or answer.strategy == "rank" else {"strategy": "rank"}
    if gate == "quality":
        # A threshold of probability does not move this gate; a click asks the decoder anew.
        points = [item.point for item in answer.candidates if item.gate == gate and item.point]
        return {"points": [_rounded(points[0])]} if points else {}
    if gate == "exclusion":
        return {"exclude": None}
    if gate == "background":
        return {"background": None}
    return {"overlap": "allow"} if gate == "overlap" else {}


def sentence(
    answer: PhraseAnswer, *, opened: PhraseAnswer | None = None, command_line: bool = False
) -> str:
    """One sentence about a phrase: what is left, or which gate closed, by how much, what to type.

    Args:
        answer: What came out.
        opened: The same phrase asked with a low threshold, if it was.
        command_line: Whether to name options of `textsam segment` in place of Python's keywords.
    """
    name = repr(answer.phrase)
    gate, reason = closed_gate(answer)
    if gate is None:
        count = len(answer.kept)
        left = f"{name}: {count} mask{'s' if count > 1 else ''}"
        chance = "" if math.isnan(answer.presence) else f", presence {answer.presence:.2f}"
        dropped = Counter(item.gate for item in answer.candidates if item.gate is not None)
        lost = ", ".join(f"{dropped[key]} by {key}" for key in GATES if dropped[key])
        return f"{left}{chance}" + (f"; dropped: {lost}" if lost else "")
    told = f"{name}: nothing, the {gate} gate closed: {GATES[gate]}"
    numbers = ", ".join(part for part in (reason, _shortfall(answer, gate)) if part)
    told += f" ({numbers})" if numbers else ""
    options = to_options(advice(answer, opened=opened), command_line=command_line)
    if options:
        return f"{told}; to get past it, {options}"
    return f"{told}; try other words for it" if gate in ("presence", "map") else told


def sweep(answers: Sequence[PhraseAnswer], thresholds: Iterable[float]) -> tuple[SweepStep, ...]:
    """Count what would be left at each threshold.

    The other gates stay as they are. Below the level that an answer was asked with, masks may be
    missing that were never looked for; `SweepStep.exact` says so.

    Args:
        answers: Best asked with a low threshold.
        thresholds: Probabilities.

    Raises:
        ValueError: A threshold that is no probability.
    """
    steps = []
    for threshold in thresholds:
        if not 0 <= threshold <= 1:
            raise ValueError(f"got threshold {threshold}; wanted a number from 0 to 1")
        left = [_left_at(answer, threshold) for answer in answers]
        exact = all(_looked_everywhere(answer, threshold) for answer in answers)
        steps.append(
            SweepStep(
                threshold=float(threshold),
                masks=sum(left),
                phrases=sum(count > 0 for count in left),
                exact=exact,
            )
        )
    return tuple(steps)


def to_options(keywords: Mapping[str, Any], *, command_line: bool) -> str:
    """What to type for keywords of `segment`; "" for none."""
    parts = []
    for key, value in keywords.items():
        if value is None:
            parts.append(f"leave out {'--' * command_line}{key}")
        elif key == "points":
            clicks = [f"-p {x:g},{y:g}" for x, y in value]
            parts.append(f"type {' '.join(clicks) if command_line else f'points={value}'}")
        elif command_line:
            parts.append(f"type --{key} {value}")
        else:
            shown = f'"{value}"' if isinstance(value, str) else value
            parts.append(f"type {key}={shown}")
    return ", ".join(parts)


def _left_at(answer: PhraseAnswer, threshold: float) -> int:
    """Masks of a phrase that only the presence and the score would decide about."""
    if answer.presence < threshold:  # False for NaN, as where strategies ask
        return 0
    return sum(not item.score < threshold for item in _decided_by_score(answer))


def _decided_by_score(answer: PhraseAnswer) -> list[Candidate]:
    return [item for item in answer.candidates if item.gate in (None, "presence", "score")]


def _looked_everywhere(answer: PhraseAnswer, threshold: float) -> bool:
    """Whether no mask is missing at a threshold."""
    if answer.presence < threshold:
        return True
    if answer.strategy == "rank" and answer.candidates:
        return True  # it scores every mask of the picture
    if answer.gate == "presence" and not answer.candidates:
        return False
    return threshold >= answer.least_score


def _admitting_threshold(answer: PhraseAnswer, opened: PhraseAnswer | None) -> float | None:
    """The highest threshold, in hundredths, at which a mask is left; None if there is none.

    Where masks were not looked for, the presence, and for the map its best place, are an upper
    bound: no higher threshold helps.
    """
    known = opened or answer
    chance = _known(known.presence, unknown=1.0)
    # Of masks that even a low threshold dropped nobody knows what later gates would say.
    items = _decided_by_score(answer) if opened is None else opened.kept
    scores = [_known(item.score, unknown=1.0) for item in items]
    if scores:
        chance = min(chance, max(scores))
    elif opened is not None:
        return None
    elif answer.gate != "presence":
        if answer.similarity is None or not answer.similarity.size:
            return None
        chance = min(chance, float(answer.similarity.max()))
    level = math.floor(chance * _DECIMALS) / _DECIMALS
    return level if 0 < level < 1 else None


def _shortfall(answer: PhraseAnswer, gate: Gate) -> str:
    """By how much the best missed the level of a gate that has one."""
    if gate == "presence":
        missed = answer.least_presence - answer.presence
    elif gate == "score":
        scores = [item.score for item in answer.candidates if item.gate == gate]
        missed = answer.least_score - max(scores, default=math.nan)
    else:
        return ""
    return f"{missed:.2f} too low" if missed > 0 else ""


def _known(value: float, *, unknown: float = -1.0) -> float:
    return unknown if math.isnan(value) else value


def _rounded(point: tuple[float, float]) -> tuple[float, float]:
    return round(point[0], 1), round(point[1], 1)
