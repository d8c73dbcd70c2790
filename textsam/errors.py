"""The errors that textsam raises, and the lazy import that explains a missing extra.

Every error says three things: what came, what was wanted, and what to type instead. All derive from
`TextSamError`; those about a bad argument are a `ValueError` as well, so code that knows nothing of
textsam can catch them.
"""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = [
    "ImageError",
    "MissingExtraError",
    "PromptError",
    "TextSamError",
    "WeightsError",
    "one_line",
    "require",
]


class TextSamError(Exception):
    """Base of every error that textsam raises on purpose."""


class ImageError(TextSamError, ValueError):
    """Something given as an image is none, or is one that could be read in two ways."""


class PromptError(TextSamError, ValueError):
    """A phrase, point, label, box or mask that cannot be meant."""


class WeightsError(TextSamError, ValueError):
    """A checkpoint that is missing, unreadable, or does not fit the model."""


class MissingExtraError(TextSamError, ImportError):
    """An optional dependency is not installed; the message says which extra brings it."""


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency at the moment it is needed.

    Args:
        module: Dotted name of the module, e.g. `"lancedb"` or `"matplotlib.pyplot"`.
        extra: The extra of textsam that installs it, e.g. `"search"`.

    Returns:
        The imported module; for a dotted name, the innermost one.

    Raises:
        MissingExtraError: The module, or something that it imports, is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        # A module that is there but fails on ITS imports is told apart: say which one is missing.
        package = module.partition(".")[0]
        missing = (error.name or "").partition(".")[0] == package
        what = "is not installed" if missing else f"cannot be imported ({error})"
        raise MissingExtraError(
            f'This needs {package!r}, which {what}. Type: pip install "textsam[{extra}]"',
            name=module,
        ) from error


def one_line(error: BaseException) -> str:
    """Say an error on one line; its type stands before messages that would mean little alone."""
    text = " ".join(str(error).split())
    if isinstance(error, ValueError | OSError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
