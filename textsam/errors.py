"""The errors that textsam raises, and an import that explains a missing extra.

Each message says what came, what was wanted, and what to type instead. All errors derive from
`TextSamError`; those about a bad argument are also a `ValueError`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from types import ModuleType

__all__ = [
    "ImageError",
    "ImageNote",
    "MissingExtraError",
    "PromptError",
    "TextSamError",
    "UnknownKeywordError",
    "WeightsError",
    "one_line",
    "require",
    "unknown_attribute",
    "unknown_keyword",
]


class TextSamError(Exception):
    """Base class of all errors that textsam raises on purpose."""


class ImageError(TextSamError, ValueError):
    """An argument is not an image, or its layout is ambiguous."""


class ImageNote(UserWarning):
    """What was assumed when a photo was read: its white level, its page, what is behind alpha."""


class PromptError(TextSamError, ValueError):
    """A phrase, point, label, box, mask or option is invalid, or several do not go together."""


class UnknownKeywordError(PromptError, TypeError):
    """There is no such keyword; a `TypeError` too, as Python itself raises."""


class WeightsError(TextSamError, ValueError):
    """A checkpoint is missing, unreadable, or does not fit the model."""


class MissingExtraError(TextSamError, ImportError):
    """An optional dependency is not installed; the message names the extra that installs it."""


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency where it is needed.

    Args:
        module: Dotted name of the module, e.g. `"lancedb"` or `"matplotlib.pyplot"`.
        extra: The extra of textsam that installs it, e.g. `"search"`.

    Returns:
        The imported module; for a dotted name, the innermost one.

    Raises:
        MissingExtraError: The module, or one that it imports, is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        # An installed module may fail because of ITS imports; then say which of them is missing.
        package = module.partition(".")[0]
        missing = (error.name or "").partition(".")[0] == package
        what = "is not installed" if missing else f"cannot be imported ({error})"
        raise MissingExtraError(
            f'This needs {package!r}, which {what}. Type: pip install "textsam[{extra}]"',
            name=module,
        ) from error


def unknown_keyword(
    name: str, keywords: Sequence[str], foreign_names: Mapping[str, str]
) -> UnknownKeywordError:
    """The error for a name that is no keyword; it tells the nearest one.

    Args:
        name: Name that was typed.
        keywords: All keywords.
        foreign_names: For a keyword, what other libraries call it, separated by spaces.
    """
    keyword_of = {other: own for own, others in foreign_names.items() for other in others.split()}
    near = [keyword_of.get(name), *get_close_matches(name, keywords, n=1)]
    advice = next((f". Type: {other}=" for other in near if other in keywords), "")
    return UnknownKeywordError(
        f"there is no keyword {name!r}{advice}; wanted some of {', '.join(keywords)}"
    )


def unknown_attribute(owner: object, name: str, advice: Mapping[str, str]) -> AttributeError:
    """The error for an attribute that does not exist, with what other libraries' users can type.

    `advice` tells what to type in place of a name.
    """
    kind = type(owner)
    # Objects with slots have no `__dict__` and ask for it here.
    known = {*dir(kind), *(() if name == "__dict__" else getattr(owner, "__dict__", ()))}
    public = ", ".join(sorted(n for n in known if not n.startswith("_")))
    hint = f"Type: {advice[name]}" if name in advice else f"It has {public}"
    return AttributeError(f"{kind.__name__!r} has no attribute {name!r}. {hint}")


def one_line(error: BaseException) -> str:
    """An error as one line, with its type if the message alone might say little (KeyError)."""
    text = " ".join(str(error).split())
    if isinstance(error, ValueError | OSError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
