"""The phrases that the tiny text tower learns: names in the data, ImageNet's names, WordNet.

WordNet comes from Debian's package `wordnet-base`; without it the list is the data's and ImageNet's
names, and the text tower knows fewer words.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

__all__ = ["imagenet_names", "phrase_list", "wordnet_words"]

logger = logging.getLogger(__name__)

WORDNET = Path("/usr/share/wordnet")
_WORD = re.compile(r"[a-z][a-z '-]{1,30}")
_FRAMES = ("a photo of a {}", "the {}", "a {}", "{}s", "a picture of the {}", "two {}s", "one {}")
_COLOURS = (
    *("red", "green", "blue", "yellow", "orange", "purple", "pink", "brown"),
    *("black", "white", "grey", "golden", "silver", "beige"),
)


def imagenet_names() -> list[list[str]]:
    """Synonyms of the 1000 ImageNet classes, in class order."""
    from timm.data.imagenet_info import ImageNetInfo

    info = ImageNetInfo()
    return [
        [name.strip().lower() for name in info.index_to_description(i).split(",")]
        for i in range(1000)
    ]


def wordnet_words(part: str, *, folder: Path = WORDNET) -> list[str]:
    """Lower-case lemmas of WordNet's `noun` or `adj` index; none if it is not installed."""
    path = folder / f"index.{part}"
    if not path.exists():
        logger.warning("no WordNet at %s (apt-get install wordnet-base): going on without", folder)
        return []
    lemmas = (line.split(" ", 1)[0].replace("_", " ") for line in path.read_text().splitlines())
    return [lemma for lemma in lemmas if _WORD.fullmatch(lemma) and lemma.count(" ") < 3]


def phrase_list(names: Iterable[str], *, seed: int, described: int = 30_000) -> list[str]:
    """Every phrase to distil, without doubles, in a fixed order.

    Args:
        names: Labels of the data.
        seed: Decides which adjectives and frames are put around which nouns.
        described: How many nouns get an adjective, a colour or a sentence frame.
    """
    rng = np.random.default_rng(seed)
    known = sorted(set(names) | {name for group in imagenet_names() for name in group})
    nouns = wordnet_words("noun")
    adjectives = wordnet_words("adj") or list(_COLOURS)
    phrases = known + nouns
    framed = [frame.format(name) for frame in _FRAMES for name in known]
    common = known + [noun for noun in nouns if " " not in noun]
    for _ in range(described if nouns else 0):
        noun = common[rng.integers(len(common))]
        kind = rng.integers(3)
        if kind == 0:
            framed.append(f"{_COLOURS[rng.integers(len(_COLOURS))]} {noun}")
        elif kind == 1:
            framed.append(f"{adjectives[rng.integers(len(adjectives))]} {noun}")
        else:
            framed.append(_FRAMES[rng.integers(len(_FRAMES))].format(noun))
    return list(dict.fromkeys(phrases + framed))
