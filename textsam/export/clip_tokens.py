"""CLIP's tokenizer as a table, and phrases -> `input_ids` with it, without torch or open_clip.

The table is all that another program needs: `vocabulary` lists every token in the order of its id,
`merges` the pairs in the order in which they are joined.
"""

from __future__ import annotations

import html
import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from textsam.errors import WeightsError
from textsam.values.prompts import normalize_phrases, plain_phrase

if TYPE_CHECKING:
    from textsam.clip.encoder import ClipEncoder

__all__ = ["TOKENIZER_FILE", "PhraseTokenizer", "tokenizer_table"]

TOKENIZER_FILE = "tokenizer.json"
_FORMAT, _VERSION = "textsam-clip-bpe", 1
_ENDINGS = ("'re", "'ve", "'ll", "'s", "'t", "'m", "'d")


def tokenizer_table(clip: ClipEncoder) -> dict[str, Any]:
    """The table of a CLIP that reads phrases by CLIP's own byte-pair encoding.

    Raises:
        WeightsError: It has another tokenizer.
    """
    tokenizer: Any = clip.tokenizer
    ranks = getattr(tokenizer, "bpe_ranks", None)
    lowers = getattr(getattr(tokenizer, "clean_fn", None), "__name__", "") == "_clean_lower"
    if ranks is None or not lowers or getattr(tokenizer, "reduction_fn", None) is not None:
        raise WeightsError(
            f"the text tower of {clip.name} has a {type(tokenizer).__name__} of its own; exported "
            "phrases need CLIP's byte-pair encoding. Type: --parts encoder,decoder"
        )
    start, end = tokenizer.sot_token_id, tokenizer.eot_token_id
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "context_length": int(tokenizer.context_length),
        "start": int(start),
        "end": int(end),
        "padding": 0,
        "word_end": "</w>",
        "templates": list(clip.templates),
        "plain_phrases": clip.plain_phrases,
        "aliases": dict(clip.aliases),
        "merges": [" ".join(pair) for pair in sorted(ranks, key=lambda pair: ranks[pair])],
        "vocabulary": sorted(tokenizer.encoder, key=lambda token: tokenizer.encoder[token]),
    }


class PhraseTokenizer:
    """Phrases -> `input_ids` by a table of `tokenizer_table`.

    Equal to open_clip's tokenizer but for broken encodings ("cafÃ©"), which that one repairs with a
    package of its own.

    Attributes:
        aliases: See `ClipEncoder.aliases`.
    """

    def __init__(self, table: Mapping[str, Any]) -> None:
        if table.get("format") != _FORMAT or table.get("version") != _VERSION:
            raise WeightsError(
                f"tokenizer table of format {table.get('format')!r}, version "
                f"{table.get('version')!r}; this textsam reads {_FORMAT!r}, version {_VERSION}. "
                "Type: textsam export MODEL -o FOLDER"
            )
        self._table = table
        self.aliases: dict[str, str] = table["aliases"]
        self._ids = {token: number for number, token in enumerate(table["vocabulary"])}
        pairs = (tuple(pair.split(" ")) for pair in table["merges"])
        self._ranks = {pair: rank for rank, pair in enumerate(pairs)}
        self._bytes = _byte_letters()

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the table of a file."""
        return cls(json.loads(path.read_text(encoding="utf-8")))

    def plain(self, phrase: str) -> str:
        """What the tower reads of a phrase: as `ClipEncoder.plain`."""
        if not self._table["plain_phrases"]:
            return phrase
        words = plain_phrase(phrase).split()
        for start in range(len(words)):
            known = self.aliases.get(" ".join(words[start:]).lower())
            if known is not None:
                return " ".join([*words[:start], known])
        return " ".join(words)

    def __call__(self, phrases: str | Sequence[str]) -> NDArray[np.int64]:
        """(P x T, L) int64, a row for each phrase and template; a `PromptError` if empty."""
        plain = [self.plain(phrase) for phrase in normalize_phrases(phrases)]
        templates = self._table["templates"]
        # Not str.format: braces in the phrase are ordinary characters.
        sentences = [text.replace("{}", phrase) for phrase in plain for text in templates]
        length = self._table["context_length"]
        rows = np.full((len(sentences), length), self._table["padding"], np.int64)
        for row, sentence in zip(rows, sentences, strict=True):
            tokens = [self._table["start"], *self._encode(sentence)][: length - 1]
            tokens.append(self._table["end"])  # also where the sentence is cut off
            row[: len(tokens)] = tokens
        return rows

    def _encode(self, text: str) -> Iterator[int]:
        text = unicodedata.normalize("NFC", html.unescape(html.unescape(text)))
        for word in _words(" ".join(text.split()).lower()):
            for token in self._merge("".join(self._bytes[b] for b in word.encode())):
                yield self._ids[token]

    def _merge(self, word: str) -> list[str]:
        """Join the letters of a word, the pair that comes first in the table first."""
        parts = [*word[:-1], word[-1] + self._table["word_end"]]
        never = len(self._ranks)
        while len(parts) > 1:
            pairs = list(pairwise(parts))
            best = min(pairs, key=lambda pair: self._ranks.get(pair, never))
            if best not in self._ranks:
                break
            joined: list[str] = []
            for part in parts:
                if joined and (joined[-1], part) == best:
                    joined[-1] += part
                else:
                    joined.append(part)
            parts = joined
        return parts


def _words(text: str) -> Iterator[str]:
    """Split as CLIP does: endings ('s), runs of letters, single digits, runs of anything else."""
    place = 0
    while place < len(text):
        ending = next((e for e in _ENDINGS if text.startswith(e, place)), None)
        kind = _kind(text[place])
        end = place + (len(ending) if ending else 1)
        if not ending and kind in "LO":
            while end < len(text) and _kind(text[end]) == kind:
                end += 1
        if kind != " ":
            yield text[place:end]
        place = end


def _kind(letter: str) -> str:
    category = unicodedata.category(letter)
    if letter.isspace():
        return " "
    return category[0] if category[0] in "LN" else "O"


@lru_cache
def _byte_letters() -> list[str]:
    """The printable letter that stands for each byte, as in GPT-2's encoding."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    letters = dict(zip(shown, map(chr, shown), strict=True))
    letters |= {byte: chr(256 + number) for number, byte in enumerate(hidden)}
    return [letters[byte] for byte in range(256)]
