"""Settings that are given whole or by the name of a preset."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from textsam.errors import PromptError

__all__ = ["resolve_preset"]

S = TypeVar("S")


def resolve_preset(
    given: S | str | None, kind: type[S], presets: Mapping[str, Callable[[], S]], *, default: str
) -> S:
    """Settings from what a caller gave.

    Args:
        given: Settings, the name of a preset, or None for the default one.
        kind: The settings' type.
        presets: What makes each of them.
        default: A name of those.

    Raises:
        PromptError: Another name, or something else.
    """
    if isinstance(given, kind):
        return given
    name = default if given is None else given
    if isinstance(name, str) and name in presets:
        return presets[name]()
    raise PromptError(
        f"settings are {given!r}; wanted {kind.__name__}(...) or one of {list(presets)}"
    )
