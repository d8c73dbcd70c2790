"""Why nothing is left of a phrase, by how much a level was missed, and which option helps.

A phrase has no mask in the result if a gate dropped the phrase as a whole, or each of its masks.
Everything here is read from a `PhraseAnswer`, or `judge` is asked at other levels; no model runs.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from textsam.values.judge import GATES, Gate, Levels, PhraseAnswer, closed_gate, is_exact, judge
from textsam.values.prompts import split_colour

# Thresholds are advised with two decimals, below 0.1 with three, rounded down so that the mask
# passes. A threshold below the minimum would let everything pass.
_FINE_BELOW = 0.1
_MIN_ADVISED, _MAX_ADVISED = 0.01, 0.99


@dataclass(frozen=True, kw_only=True)
class SweepStep:
    """What is left at a threshold.

    Attributes:
        threshold: Probability that phrases and masks must reach, as `segment(threshold=...)`.
        masks: Masks left.
        phrases: Phrases with a mask left.
        exact: Whether `segment(threshold=...)` gives just that. Otherwise it is an estimate: with
            that threshold masks would be looked for in more or in fewer places.
    """

    threshold: float
    masks: int
    phrases: int
    exact: bool


def advice(answer: PhraseAnswer, *, opened: PhraseAnswer | None = None) -> dict[str, Any]:
    """Keywords of `segment` with which a phrase gets a mask, for example `{"threshold": 0.31}`.

    None as a value means to leave the option out. Empty if the phrase has a mask, or if no option
    helps. `opened` is its answer at a low threshold, which makes the advice exact.
    """
    gate, _ = closed_gate(answer)
    if gate in ("presence", "map", "score", "quality"):
        threshold = _admitting_threshold(answer, opened)
        if threshold is not None:
            return {"threshold": threshold}
    if gate in ("map", "score"):
        return {} if answer.strategy == "rank" else {"strategy": "rank"}
    if gate == "quality":  # a click makes the decoder predict another outline
        points = [item.point for item in answer.candidates if item.gate == gate and item.point]
        return {"points": [(round(x, 1), round(y, 1)) for x, y in points[:1]]} if points else {}
    if gate == "exclusion":
        return {"unlike" if answer.strategy == "like" else "exclude": None}
    if gate == "background":
        return {"background": None}
    if gate == "colour":
        plain = split_colour(answer.phrase)
        return {} if plain is None else {"text": plain.name}
    # A box of "detect" may be another phrase's whatever the overlap.
    if gate == "overlap" and (answer.strategy != "detect" or answer.dependent):
        return {"overlap": "allow"}
    return {}


# What no text tower reads: lists, negations, and places or sizes among several things.
_LIST = re.compile(r"\s*(?:[,;/&+]|\b(?:and|or)\b)\s*", re.IGNORECASE)
_NEGATION = re.compile(
    r"^(?:no|not|non|without|except|anything but)\b[ -]*(?:an? )?", re.IGNORECASE
)
_WITHOUT = re.compile(r"^(.+?) (?:without|except|but not|but no) (.+)$", re.IGNORECASE)
_PLACE = re.compile(
    r"\b(?:left|right|leftmost|rightmost|upper|lower|topmost|middle|cent(?:er|re)|behind|above|below"
    r"|beside|next to|nearest|closest|farthest|biggest|largest|smallest)\b",
    re.IGNORECASE,
)


def phrase_hint(phrase: str, *, command_line: bool = False) -> str:
    """What to type in place of a phrase that is more than the name of a thing; "" if it is one."""
    without, negation = _WITHOUT.match(phrase), _NEGATION.match(phrase)
    if without is not None:
        wanted, other = without.groups()
        typed = f'-t "{wanted}" --exclude "{other}"'
        asked = typed if command_line else f'text="{wanted}", exclude="{other}"'
        return f"a phrase cannot leave things out; type {asked}"
    if negation is not None and phrase[negation.end() :]:
        typed = ("--exclude " if command_line else "exclude=") + f'"{phrase[negation.end() :]}"'
        return f"a phrase cannot leave things out; type {typed} beside what you want"
    parts = [part for part in _LIST.split(phrase) if part]
    if len(parts) > 1:
        names = ", ".join(f'"{part}"' for part in parts)
        asked = " ".join(f'-t "{part}"' for part in parts) if command_line else f"text=[{names}]"
        return f"it is read as one phrase; for each on its own, type {asked}"
    place = _PLACE.search(phrase)
    if place is None:
        return ""
    choice = "choose by the boxes of the result" if command_line else "choose by mask.box"
    name = phrase[place.end() :].strip()
    if place.start() == 0 and name:  # "left wheel", not "the wheel on the left"
        choice = f'type {"-t " if command_line else "text="}"{name}" and {choice}'
    return f"{place.group()!r} says which of several, and is not judged; {choice}"


def sentence(
    answer: PhraseAnswer, *, opened: PhraseAnswer | None = None, command_line: bool = False
) -> str:
    """One sentence about a phrase: its masks, or why it has none and which option helps."""
    # The command line says it before anything runs.
    hint = "" if command_line else phrase_hint(answer.phrase)
    text = _verdict(answer, opened=opened, command_line=command_line)
    return f"{text}. Note: {hint}" if hint else text


def _verdict(answer: PhraseAnswer, *, opened: PhraseAnswer | None, command_line: bool) -> str:
    name = repr(answer.phrase)
    gate, reason = closed_gate(answer)
    by_example = gate == "exclusion" and answer.strategy == "like"
    if gate is None:
        count = len(answer.kept)
        left = f"{name}: {count} mask{'s' if count > 1 else ''}"
        chance = "" if math.isnan(answer.presence) else f", presence {answer.presence:.2f}"
        chance += _used_levels(answer.levels)
        dropped = Counter(item.gate for item in answer.candidates if item.gate is not None)
        lost = ", ".join(f"{dropped[key]} by {key}" for key in GATES if dropped[key])
        return f"{left}{chance}" + (f"; dropped: {lost}" if lost else "")
    why = "it looks more like an example of what is not meant" if by_example else GATES[gate]
    text = f"{name}: nothing, the {gate} gate closed: {why}"
    numbers = ", ".join(part for part in (reason, _shortfall(answer, gate)) if part)
    text += f" ({numbers})" if numbers else ""
    options = to_options(advice(answer, opened=opened), command_line=command_line)
    if options:
        return f"{text}; to get past it, {options}"
    return f"{text}; try other words for it" if gate in ("presence", "map") else text


def _used_levels(levels: Levels) -> str:
    """The levels, where they are not those that all phrases share."""
    if levels.fixed or not (levels.own or levels.threshold is not None):
        return ""
    whose = "threshold" if levels.threshold is not None else "the phrase's own levels"
    numbers = dict.fromkeys((f"{levels.min_presence:.2f}", f"{levels.min_score:.2f}"))
    return f" ({whose} {' and '.join(numbers)})"


def sweep(answers: Sequence[PhraseAnswer], thresholds: Iterable[float]) -> tuple[SweepStep, ...]:
    """Count what would be left at each threshold, by judging the answers again."""
    steps = []
    for threshold in thresholds:
        if not 0 <= threshold <= 1:
            raise ValueError(f"got threshold {threshold}; wanted a number from 0 to 1")
        levels = [answer.levels.at(threshold) for answer in answers]
        pairs = list(zip(answers, levels, strict=True))
        counts = [len(judge(answer, own).kept) for answer, own in pairs]
        steps.append(
            SweepStep(
                threshold=float(threshold),
                masks=sum(counts),
                phrases=sum(count > 0 for count in counts),
                exact=all(is_exact(answer, own) for answer, own in pairs),
            )
        )
    return tuple(steps)


def to_options(keywords: Mapping[str, Any], *, command_line: bool) -> str:
    """What to type for keywords of `segment`, in words; "" for none."""
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


def _admitting_threshold(answer: PhraseAnswer, opened: PhraseAnswer | None) -> float | None:
    """The highest threshold, rounded down, at which a mask is left; None if there is none.

    Where masks were not looked for, the presence, and for the map its best place, are an upper
    bound: no higher threshold helps.
    """
    known = opened or answer
    presence = 1.0 if math.isnan(known.presence) else known.presence
    if known.candidates:
        # The number of masks left changes only at these numbers.
        numbers = [presence, *known.rivaled.values()]
        numbers += [number for item in known.candidates for number in (item.score, item.quality)]
        thresholds = {t for t in map(_rounded_down, numbers) if t is not None}
        for threshold in sorted(thresholds, reverse=True):
            if judge(known, known.levels.at(threshold)).kept:
                return threshold
        return None
    if opened is not None:  # even a very low threshold leaves nothing
        return None
    if answer.gate == "presence":
        return _rounded_down(presence)
    if answer.similarity is None or not answer.similarity.size:
        return None
    return _rounded_down(min(presence, float(answer.similarity.max())))


def _rounded_down(number: float) -> float | None:
    """A threshold as a person types it; None if it is too low to be advised."""
    if math.isnan(number):
        return None
    steps = 100 if number >= _FINE_BELOW else 1000
    threshold = min(math.floor(number * steps) / steps, _MAX_ADVISED)
    return threshold if threshold >= _MIN_ADVISED else None


def _shortfall(answer: PhraseAnswer, gate: Gate) -> str:
    """By how much the best number missed its level, for gates that have one."""
    if gate == "presence":
        missed = answer.levels.min_presence - answer.presence
    elif gate == "score":
        scores = [item.score for item in answer.candidates if item.gate == gate]
        missed = answer.levels.min_score - max(scores, default=math.nan)
    else:
        return ""
    return f"{missed:.2f} too low" if missed > 0 else ""
