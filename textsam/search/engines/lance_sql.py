"""Conditions on rows as the SQL that Lance filters by."""

from __future__ import annotations

import math
from collections.abc import Sequence

from textsam.search.where import Where

__all__ = ["sql_of"]


def sql_of(where: Where) -> str | None:
    """The conditions, joined; None for none."""
    parts = [_among(column, values) for column, values in where.lists.items()]
    if where.not_images is not None:
        parts.append(f"NOT {_among('image', where.not_images)}")
    # Lance compares a column with numbers of its own type only.
    parts += [] if where.min_area is None else [f"area >= {math.ceil(where.min_area)}"]
    parts += [] if where.max_area is None else [f"area <= {math.floor(where.max_area)}"]
    parts += [] if where.min_aspect is None else [f"aspect >= {float(where.min_aspect)!r}"]
    parts += [] if where.max_aspect is None else [f"aspect <= {float(where.max_aspect)!r}"]
    return " AND ".join(parts) or None


def _among(column: str, values: Sequence[str | None]) -> str:
    names = [_quoted(value) for value in values if value is not None]
    parts = [f"{column} IN ({', '.join(names)})"] if names else []
    parts += [f"{column} IS NULL"] if None in values else []
    return f"({' OR '.join(parts)})"


def _quoted(value: str) -> str:
    """A string literal: in SQL only the quote itself is written twice."""
    return "'" + value.replace("'", "''") + "'"
