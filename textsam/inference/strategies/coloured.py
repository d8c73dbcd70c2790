"""Phrases with a colour ("red car"), where the model's text tower cannot judge colours.

The thing is asked for without its colour; then the pixels of each mask are looked at, and the gate
"colour" drops masks of another one. `TextSettings.measure_colours` says for which models.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeAlias

from textsam.inference.photo.encoded import EncodedPhoto
from textsam.inference.strategies.competition import cut_rivals
from textsam.values.colours import colour_match, colour_shares
from textsam.values.judge import Candidate, Gate, PhraseAnswer, judge
from textsam.values.prompts import COLOURS, ColourPhrase

Phrases: TypeAlias = tuple[str, ...]
# Answers phrases, given those that are excluded and those in the background; `typed` is a phrase
# with its colour, which the only phrase stands for.
Ask: TypeAlias = Callable[..., list[PhraseAnswer]]


def answer_by_colour(
    photo: EncodedPhoto,
    phrases: Phrases,
    exclude: Phrases,
    background: Phrases,
    ask: Ask,
    *,
    colours: Mapping[str, ColourPhrase],
) -> list[PhraseAnswer]:
    """Answer phrases by `ask`, which gets none of those in `colours`."""
    rivals: list[tuple[Gate, Candidate]] = []
    left: dict[Gate, Phrases] = {}
    named: tuple[tuple[Gate, Phrases], ...] = (("exclusion", exclude), ("background", background))
    for gate, others in named:
        left[gate] = tuple(phrase for phrase in others if phrase not in colours)
        for phrase in others:
            if phrase in colours:
                # "car" without "red car": the same masks with the same scores, and they must win.
                masks = _ask_one(photo, phrase, colours, (), (), ask).kept
                rivals += [(gate, replace(mask, score=1.0)) for mask in masks]
    plain = tuple(phrase for phrase in phrases if phrase not in colours)
    answers = {}
    if plain:
        found_plain = ask(plain, left["exclusion"], left["background"])
        answers = dict(zip(plain, found_plain, strict=True))
    for phrase in phrases:
        if phrase in colours:
            rest = left["exclusion"], left["background"]
            answers[phrase] = _ask_one(photo, phrase, colours, *rest, ask)
    return cut_rivals([answers[phrase] for phrase in phrases], rivals)


def _ask_one(
    photo: EncodedPhoto,
    phrase: str,
    colours: Mapping[str, ColourPhrase],
    exclude: Phrases,
    background: Phrases,
    ask: Ask,
) -> PhraseAnswer:
    colour, name = colours[phrase]
    others = tuple(other for other in exclude if other != name)
    [answer] = ask((name,), others, background, typed=phrase)
    shares = colour_shares(photo.image, [item.rle for item in answer.candidates])
    matches = [colour_match(row, colour) for row in shares]
    candidates = tuple(
        item
        if match >= 1 or item.ruled_out is not None
        else replace(item, ruled_out=("colour", f"{row[COLOURS.index(colour)]:.0%} is {colour}"))
        for item, match, row in zip(answer.candidates, matches, shares, strict=True)
    )
    # A red car is not in a photo whose cars are white, however sure the cars are. Cubed, since a
    # little of a colour is everywhere.
    kept = [match for item, match in zip(answer.candidates, matches, strict=True) if not item.gate]
    presence = answer.presence * max(kept) ** 3 if kept else math.nan
    rivaled = answer.rivaled if math.isnan(presence) else {**answer.rivaled, "colour": presence}
    return judge(replace(answer, phrase=phrase, candidates=candidates, rivaled=rivaled))
