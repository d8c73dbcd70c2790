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

from textsam.values.candidates import GATES, Candidate, Gate, PhraseAnswer
from textsam.values.judge import closed_gate

__all__ = ["SweepStep", "advice", "sentence", "sweep", "to_options"]

# Thresholds are advised with two decimals, below 0.1 with three, rounded down so that they let
# through what they should. Lower ones than the least would let everything through.
_FINE_BELOW = 0.1
_LEAST_ADVISED = 0.01

# `textsam.values.settings.TextSettings` by default: no threshold drops a mask of this quality,
# and fainter places than this are looked for only where the threshold is lower.
_FAIR_QUALITY = 0.2
_SURE_PLACE = 0.5


@dataclass(frozen=True, kw_only=True)
class SweepStep:
    """What would be left at a threshold.

    Attributes:
        threshold: Probability that phrases and masks must reach, as `segment(threshold=...)`.
        masks: Masks left.
        phrases: Phrases with a mask left.
        exact: Whether all is known; else there may be more: masks that were never looked for, or
            whose outline may pass or not.
    """

    threshold: float
    masks: int
    phrases: int
    exact: bool


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
    if gate in ("presence", "map", "score", "quality"):
        threshold = _admitting_threshold(answer, opened)
        if threshold is not None:
            return {"threshold": threshold}
    if gate in ("map", "score"):
        return {} if answer.strategy == "rank" else {"strategy": "rank"}
    if gate == "quality":  # a click asks the decoder anew
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

    The other gates stay as they are. At low thresholds masks may be missing that were never looked
    for; `SweepStep.exact` says so.

    Args:
        answers: What strategies said.
        thresholds: Probabilities.

    Raises:
        ValueError: A threshold that is no probability.
    """
    steps = []
    for threshold in thresholds:
        if not 0 <= threshold <= 1:
            raise ValueError(f"got threshold {threshold}; wanted a number from 0 to 1")
        counts = [_left_at(answer, threshold) for answer in answers]
        exact = all(certain == possible for certain, possible in counts)
        exact = exact and all(_looked_everywhere(answer, threshold) for answer in answers)
        steps.append(
            SweepStep(
                threshold=float(threshold),
                masks=sum(certain for certain, _ in counts),
                phrases=sum(certain > 0 for certain, _ in counts),
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


@dataclass(frozen=True)
class _Levels:
    """Up to which threshold a mask is left: for certain, and possibly."""

    certain: float
    possible: float


def _left_at(answer: PhraseAnswer, threshold: float) -> tuple[int, int]:
    """Masks of a phrase that a threshold leaves: for certain, and possibly."""
    if answer.presence < threshold:  # False for NaN, as where strategies ask
        return 0, 0
    levels = _levels(answer)
    certain = sum(level.certain >= threshold for level in levels)
    return certain, sum(level.possible >= threshold for level in levels)


def _levels(answer: PhraseAnswer) -> list[_Levels]:
    """Of each mask that a threshold can admit."""
    found = []
    for item in answer.candidates:
        if item.gate not in (None, "presence", "score", "quality"):
            continue
        score = _known(item.score, unknown=math.inf)
        quality = _quality(item)
        if item.gate == "quality":
            level = min(score, _known(quality, unknown=-1.0))
            found.append(_Levels(level, score if math.isnan(quality) else level))
        else:
            rough = quality < _FAIR_QUALITY
            found.append(_Levels(min(score, quality) if rough else score, score))
    return found


def _quality(item: Candidate) -> float:
    """Predicted IoU times mean probability inside, as `auto` has it; or NaN.

    That gate's level is the threshold, too, but never above a setting of the model.
    """
    if "map" not in item.evidence or math.isnan(item.iou):
        return math.nan
    return max(0.0, item.iou) / (1 + math.exp(-item.evidence["map"]))


def _looked_everywhere(answer: PhraseAnswer, threshold: float) -> bool:
    """Whether no mask is missing at a threshold."""
    if answer.presence < threshold:
        return True
    if answer.strategy == "rank" and answer.candidates:
        return True  # it scores every mask of the picture
    if answer.gate == "presence" and not answer.candidates:
        return False
    least = answer.levels.min_score
    return threshold >= (least if answer.similarity is None else max(least, _SURE_PLACE))


def _admitting_threshold(answer: PhraseAnswer, opened: PhraseAnswer | None) -> float | None:
    """The highest threshold, rounded down, at which a mask is left; None if there is none.

    Where masks were not looked for, the presence, and for the map its best place, are an upper
    bound: no higher threshold helps.
    """
    known = opened or answer
    chance = _known(known.presence, unknown=1.0)
    levels = [level.certain for level in _levels(known)]
    if levels:
        chance = min(chance, max(levels))
    elif opened is not None:
        return None
    elif answer.gate != "presence":
        if answer.similarity is None or not answer.similarity.size:
            return None
        chance = min(chance, float(answer.similarity.max()))
    steps = 100 if chance >= _FINE_BELOW else 1000
    level = math.floor(chance * steps) / steps
    return level if _LEAST_ADVISED <= level < 1 else None


def _shortfall(answer: PhraseAnswer, gate: Gate) -> str:
    """By how much the best missed the level of a gate that has one."""
    if gate == "presence":
        missed = answer.levels.min_presence - answer.presence
    elif gate == "score":
        scores = [item.score for item in answer.candidates if item.gate == gate]
        missed = answer.levels.min_score - max(scores, default=math.nan)
    else:
        return ""
    return f"{missed:.2f} too low" if missed > 0 else ""


def _known(value: float, *, unknown: float = -1.0) -> float:
    return unknown if math.isnan(value) else value


def _rounded(point: tuple[float, float]) -> tuple[float, float]:
    return round(point[0], 1), round(point[1], 1)
