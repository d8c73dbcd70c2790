"""WordNet's nouns: lemmas, synonyms and hypernyms, read from Debian's package `wordnet-base`."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

logger = logging.getLogger(__name__)

WORDNET = Path("/usr/share/wordnet")
_WORD = re.compile(r"[a-z][a-z '-]{1,30}")
_SIBILANT = re.compile(r"(s|x|z|ch|sh)$")
_IRREGULAR = {
    "foot": "feet",
    "tooth": "teeth",
    "goose": "geese",
    "mouse": "mice",
    "leaf": "leaves",
    "knife": "knives",
    "wolf": "wolves",
    "shelf": "shelves",
    "scarf": "scarves",
    "calf": "calves",
    "half": "halves",
    "loaf": "loaves",
    "thief": "thieves",
    "wife": "wives",
    "life": "lives",
    "man": "men",
    "woman": "women",
    "child": "children",
    "person": "people",
    "ox": "oxen",
    "sheep": "sheep",
    "fish": "fish",
    "deer": "deer",
    "tomato": "tomatoes",
    "potato": "potatoes",
}


class Nouns:
    """Nouns and their senses; the first sense of a word is its most frequent one.

    Attributes:
        senses: Lemma, lower case -> offsets of its synsets, most frequent first.
        common: Lemmas that WordNet's tagged texts contain.
        words: Offset of a synset -> its lemmas, lower case.
        parents: Offset of a synset -> offsets of its hypernyms.
    """

    def __init__(self, folder: Path) -> None:
        self.senses: dict[str, list[str]] = {}
        self.common: set[str] = set()
        self.words: dict[str, list[str]] = {}
        self.parents: dict[str, list[str]] = {}
        for line in _lines(folder / "index.noun"):
            fields = line.split()
            # The offsets are the last fields; how many there are is the third.
            lemma, count = fields[0].replace("_", " "), int(fields[2])
            self.senses[lemma] = fields[-count:]
            if fields[-count - 1] != "0":  # how many of its senses were tagged
                self.common.add(lemma)
        for line in _lines(folder / "data.noun"):
            fields = line.split(" | ", 1)[0].split()
            count = int(fields[3], 16)
            words = [fields[4 + 2 * i].replace("_", " ").lower() for i in range(count)]
            pointers = fields[5 + 2 * count :]
            self.words[fields[0]] = words
            self.parents[fields[0]] = [
                pointers[i + 1] for i in range(0, len(pointers), 4) if pointers[i] in ("@", "@i")
            ]

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.senses)

    def lemmas(self) -> list[str]:
        """Words and short phrases of letters alone, in alphabetical order."""
        return [w for w in self.senses if _WORD.fullmatch(w) and w.count(" ") < 3]

    def synonyms(self, word: str) -> list[str]:
        """Words that share the first sense of a word, and for which it is the first sense, too."""
        if word not in self.senses:
            return []
        first = self.senses[word][0]
        return [
            other
            for other in self.words[first]
            if other != word and _WORD.fullmatch(other) and self.senses[other][0] == first
        ]

    def hypernyms(self, word: str) -> set[str]:
        """Every word for a kind that the first sense of a word belongs to, in its first sense."""
        above: set[str] = set()
        stack = list(self.parents[self.senses[word][0]]) if word in self.senses else []
        while stack:
            offset = stack.pop()
            above |= {w for w in self.words[offset] if self.senses[w][0] == offset}
            stack += self.parents[offset]
        return above


@cache
def nouns(folder: Path = WORDNET) -> Nouns:
    """The nouns; empty if WordNet is not installed."""
    return Nouns(folder)


@cache
def adjectives(folder: Path = WORDNET) -> list[str]:
    """The adjectives; none if WordNet is not installed."""
    lemmas = (line.split(" ", 1)[0].replace("_", " ") for line in _lines(folder / "index.adj"))
    return [lemma for lemma in lemmas if _WORD.fullmatch(lemma) and lemma.count(" ") < 3]


def plural(noun: str) -> str:
    """The English plural of a noun; of several words that of the last one."""
    first, space, last = noun.rpartition(" ")
    if last in _IRREGULAR:
        return f"{first}{space}{_IRREGULAR[last]}"
    if _SIBILANT.search(noun):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2:-1] not in tuple("aeiou"):
        return f"{noun[:-1]}ies"
    return f"{noun}s"


def _lines(path: Path) -> Iterator[str]:
    if not path.exists():
        logger.warning("no %s (apt-get install wordnet-base): going on without", path)
        return
    with path.open(encoding="utf-8") as lines:
        yield from (line for line in lines if not line.startswith("  "))  # the licence
