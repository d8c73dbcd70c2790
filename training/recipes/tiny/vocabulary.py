"""The phrases that the tiny text tower learns, and whose embedding each of them gets.

Names in the data, their synonyms, plurals and frames ("the dog", "two dogs"), ImageNet's names, and
WordNet's nouns with colours and adjectives. A synonym, a plural or a frame gets the embedding of
the name itself, so that no way to say a thing is weaker than another. WordNet comes from Debian's
package `wordnet-base`; without it the list is the data's and ImageNet's names.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .lexicon import Lexicon
from .wordnet import adjectives, nouns, plural

_FRAMES = ("a photo of a {}", "the {}", "a {}", "a picture of the {}", "one {}")
_PLURAL_FRAMES = ("{}", "the {}", "two {}", "some {}", "all {}")
# Those that colour phrases of training photos use come first.
COLOURS = (
    *("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown"),
    *("black", "white", "grey", "gray", "golden", "silver", "beige"),
)


@dataclass(frozen=True, kw_only=True)
class PhraseList:
    """Phrases, each once, in a fixed order."""

    phrases: list[str]  # what the tower reads
    meanings: list[str]  # the text whose teacher embedding each phrase gets
    copies: list[int]  # how many times as often as others each is drawn


def imagenet_names() -> list[list[str]]:
    """Synonyms of the 1000 ImageNet classes, in class order."""
    from timm.data.imagenet_info import ImageNetInfo

    info = ImageNetInfo()
    return [
        [name.strip().lower() for name in info.index_to_description(i).split(",")]
        for i in range(1000)
    ]


def aliases(lexicon: Lexicon) -> dict[str, str]:
    """`ClipEncoder.aliases`: plurals of all words with the word, words with themselves."""
    # Synonyms are left to the tower: a "man" is a person to the data, but not the other way round.
    words = {*lexicon.names, *(word for group in lexicon.synonyms.values() for word in group)}
    plurals = {plural(word.lower()): word for word in words}
    plurals["persons"] = "person"
    return dict(sorted({**plurals, **{word.lower(): word for word in words}}.items()))


def phrase_list(
    lexicon: Lexicon, *, seed: int, described: int = 40_000, copies: int = 6
) -> PhraseList:
    """Every phrase to distil.

    Args:
        lexicon: Of the labels of the data.
        seed: Decides which adjectives, colours and frames are put around which nouns.
        described: How many nouns get one.
        copies: How many times as often names of the data and their synonyms are drawn.
    """
    rng = np.random.default_rng(seed)
    meanings: dict[str, str] = {}
    weights: dict[str, int] = {}

    def add(phrase: str, meaning: str, weight: int = 1) -> None:
        if phrase not in meanings:
            meanings[phrase], weights[phrase] = meaning, weight

    # Names before their synonyms: a word that is a name itself keeps its own meaning.
    for name in lexicon.names:
        add(name, name, 2 * copies)
    for name, words in lexicon.synonyms.items():
        for word in words:
            add(word, name, copies)
    imagenet = [name for group in imagenet_names() for name in group]
    for name in imagenet:
        add(name, name, 2)
    for name, meaning in list(meanings.items()):
        add(plural(name), meaning, weights[name] // 2)
        for frame in _FRAMES:
            add(frame.format(name), meaning, max(1, weights[name] // 6))
        for frame in _PLURAL_FRAMES[1:]:
            add(frame.format(plural(name)), meaning)
    for name in lexicon.names:
        for colour in COLOURS:
            # A colour word of a synonym would do no harm, but there are 15,000 of these already.
            add(f"{colour} {name}", f"{colour} {name}")
    lemmas = nouns().lemmas()
    for noun in lemmas:
        if noun in nouns().common:
            add(plural(noun), meanings.get(noun, noun))
    for noun in lemmas:
        add(noun, noun)
    single = [noun for noun in lemmas if " " not in noun]
    for _ in range(described if single else 0):
        add(*_described(single[rng.integers(len(single))], rng))
    return PhraseList(
        phrases=list(meanings), meanings=list(meanings.values()), copies=list(weights.values())
    )


def _described(noun: str, rng: np.random.Generator) -> tuple[str, str]:
    """A noun with a colour, an adjective or a frame, and what that means."""
    kind = rng.integers(4)
    if kind == 2:
        return _FRAMES[rng.integers(len(_FRAMES))].format(noun), noun
    if kind == 3:
        return _PLURAL_FRAMES[rng.integers(len(_PLURAL_FRAMES))].format(plural(noun)), noun
    words = COLOURS if kind == 0 else adjectives() or COLOURS
    phrase = f"{words[rng.integers(len(words))]} {noun}"
    return phrase, phrase
