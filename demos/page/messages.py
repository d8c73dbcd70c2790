"""What users read when something goes wrong: a sentence, never a traceback."""

from __future__ import annotations

import logging

from textsam.errors import TextSamError

__all__ = ["told"]

_LOG = logging.getLogger(__name__)


def told(error: Exception) -> str:
    """What a user reads of an error; what nobody foresaw goes to the log with its traceback."""
    if isinstance(error, TextSamError):
        return " ".join(str(error).split())
    _LOG.error("unforeseen", exc_info=error)
    return "Something went wrong here and was written to the log. What you had is still there"
