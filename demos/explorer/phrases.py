"""What people type into the phrase box, as phrases to find and phrases that are not meant."""

from __future__ import annotations

import re

from textsam.errors import PromptError

__all__ = ["MOST_PHRASES", "read_phrases"]

# More than a screen shows, and each costs a share of encoding the photo.
MOST_PHRASES = 40
_LONGEST = 200  # characters; CLIP reads some 77 tokens

_SEPARATORS = re.compile(r"[,;\n]")
# A hyphen, or what keyboards and editors make of it.
_MINUS = "-\N{EN DASH}\N{EM DASH}\N{MINUS SIGN}"


def read_phrases(text: str | None, unwanted: str | None = None) -> tuple[list[str], list[str]]:
    """Split what was typed: "wheel, window, -steering wheel".

    Args:
        text: Phrases between commas, semicolons or line ends; a minus before one excludes it.
        unwanted: The field for exclusions, where the minus may be left out.

    Returns:
        Phrases to find, and phrases that are not meant; each once, in the order typed.

    Raises:
        PromptError: Nothing to find, a phrase that is both, or more than anybody means.
    """
    wanted: dict[str, None] = {}
    excluded: dict[str, None] = {}
    for part in _parts(text):
        bare = part.lstrip(_MINUS).strip()
        if bare:
            (excluded if part[0] in _MINUS else wanted)[bare] = None
    for part in _parts(unwanted):
        if bare := part.lstrip(_MINUS).strip():
            excluded[bare] = None
    if not wanted:
        hint = " besides what is excluded" if excluded else ""
        raise PromptError(f"Type what to find{hint}, for example: wheel, window")
    if both := [phrase for phrase in wanted if phrase in excluded]:
        raise PromptError(f"{both[0]!r} is to be found and excluded at once; take one of them away")
    for phrase in (*wanted, *excluded):
        if len(phrase) > _LONGEST:
            raise PromptError(
                f"A phrase of {len(phrase)} characters: {phrase[:40]!r}...; type one of at most "
                f"{_LONGEST}. Several are separated by commas"
            )
    if len(wanted) + len(excluded) > MOST_PHRASES:
        raise PromptError(
            f"{len(wanted) + len(excluded)} phrases at once; type at most {MOST_PHRASES}"
        )
    return list(wanted), list(excluded)


def _parts(text: str | None) -> list[str]:
    return [part for raw in _SEPARATORS.split(text or "") if (part := " ".join(raw.split()))]
