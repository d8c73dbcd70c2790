"""What became of photos, on their way into an index; no networks are imported for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from textsam.errors import require
from textsam.search.index import MaskIndex

__all__ = ["PhotoRows", "add_tables"]


@dataclass(frozen=True, kw_only=True)
class PhotoRows:
    """What became of one photo.

    Attributes:
        image: Its id or URI.
        masks: Masks that were embedded now.
        kept: Masks that the index had already.
        error: Why it was passed over, one line; None if it was not.
        table: The rows of its new masks, an Arrow table of `make_table`; None for none.
    """

    image: str
    masks: int = 0
    kept: int = 0
    error: str | None = None
    table: Any = field(default=None, repr=False)


def add_tables(index: MaskIndex, tables: Sequence[Any]) -> int:
    """Put the rows of several photos into the index, in one commit; None stands for no rows."""
    there = [table for table in tables if table is not None]
    if not there:
        return 0
    return index.add_table(require("pyarrow", "search").concat_tables(there))
