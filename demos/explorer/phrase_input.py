"""What people type into the phrase box: phrases to find, and phrases to exclude."""

from __future__ import annotations

import re
from typing import Any

from textsam.errors import PromptError

__all__ = ["MAX_PHRASES", "phrase_query", "read_phrases"]

MAX_PHRASES = 40  # more than a screen shows, and each adds to the time of the answer
_MAX_LENGTH = 200  # characters; CLIP reads about 77 tokens

_SEPARATORS = re.compile(r"[,;\n]")
# Editors and phones turn a hyphen into a dash or a minus sign.
_MINUS = "-\N{EN DASH}\N{EM DASH}\N{MINUS SIGN}"


def read_phrases(text: str | None, exclude: str | None = None) -> tuple[list[str], list[str]]:
    """Split what was typed, such as "wheel, window, -steering wheel".

    Phrases are separated by commas, semicolons or line ends. A leading minus excludes a phrase;
    in `exclude` it may be left out.

    Returns:
        Phrases to find and phrases to exclude, in the order typed, without repetitions.

    Raises:
        PromptError: There is nothing to find, a phrase is in both lists, or there is too much.
    """
    parts = [(part, part[0] in _MINUS) for part in _split(text)]
    parts += [(part, True) for part in _split(exclude)]
    wanted: dict[str, None] = {}  # a dict keeps the order and drops repetitions
    excluded: dict[str, None] = {}
    for part, is_excluded in parts:
        if phrase := part.lstrip(_MINUS).strip():
            (excluded if is_excluded else wanted)[phrase] = None
    if not wanted:
        hint = " besides what is excluded" if excluded else ""
        raise PromptError(f"Type what to find{hint}, for example: wheel, window")
    if both := [phrase for phrase in wanted if phrase in excluded]:
        raise PromptError(f"{both[0]!r} is both to be found and excluded; remove one of the two")
    for phrase in (*wanted, *excluded):
        if len(phrase) > _MAX_LENGTH:
            raise PromptError(
                f"The phrase {phrase[:40]!r}... has {len(phrase)} characters; type at most "
                f"{_MAX_LENGTH}. Separate several phrases with commas"
            )
    if len(wanted) + len(excluded) > MAX_PHRASES:
        raise PromptError(f"{len(wanted) + len(excluded)} phrases; type at most {MAX_PHRASES}")
    return list(wanted), list(excluded)


def phrase_query(
    text: str | None,
    exclude: str | None = None,
    strategy: str = "auto",
    threshold: float | None = None,
    overlap: str = "allow",
) -> dict[str, Any]:
    """Keyword arguments of `ImageView.segment` and `explain` for what was typed and set."""
    wanted, excluded = read_phrases(text, exclude)
    return {
        "text": wanted,
        "exclude": excluded or None,
        "strategy": strategy,
        "threshold": threshold or None,  # the page sends 0 for the calibrated levels
        "overlap": overlap,
    }


def _split(text: str | None) -> list[str]:
    return [part for raw in _SEPARATORS.split(text or "") if (part := " ".join(raw.split()))]
