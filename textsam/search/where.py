"""`Where`: conditions on the rows of an index, independent of the engine that stores them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Where:
    """Conditions on rows; a row matches if it meets all of them, and None means no condition.

    Attributes:
        datasets: Data sets to search.
        labels: Labels to search; `None` among them stands for rows without a label.
        images: Photos to search.
        not_images: Photos to leave out, for example the one that the query mask is from.
        ids: Ids of rows to search.
        min_area: Minimum area of a mask in pixels.
        max_area: Maximum area of a mask in pixels.
        min_aspect: Minimum width / height of the bounding box.
        max_aspect: Maximum width / height of the bounding box.

    Raises:
        ValueError: A string in place of a list of strings, an empty list, a bound that is not a
            finite number from 0 up, or a lower bound above the upper one.
    """

    datasets: Sequence[str] | None = None
    labels: Sequence[str | None] | None = None
    images: Sequence[str] | None = None
    not_images: Sequence[str] | None = None
    ids: Sequence[str] | None = None
    min_area: float | None = None
    max_area: float | None = None
    min_aspect: float | None = None
    max_aspect: float | None = None

    def __post_init__(self) -> None:
        """Turn lists into tuples, and refuse conditions that no row can meet."""
        for name in ("datasets", "labels", "images", "not_images", "ids"):
            object.__setattr__(self, name, _checked_values(name, getattr(self, name)))
        for name in ("area", "aspect"):
            low, high = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            for bound, value in (("min", low), ("max", high)):
                if value is not None and not (isinstance(value, int | float) and value >= 0):
                    raise ValueError(f"got {bound}_{name}={value!r}; wanted a number from 0 up")
                if value is not None and math.isinf(value):
                    raise ValueError(f"got {bound}_{name}={value!r}; leave it out for no bound")
            if low is not None and high is not None and low > high:
                raise ValueError(f"min_{name}={low} is above max_{name}={high}: no row can match")

    @property
    def matches_all(self) -> bool:
        """Whether there is no condition, so that every row matches."""
        return all(getattr(self, field.name) is None for field in fields(self))

    @property
    def allowed_values(self) -> dict[str, Sequence[str | None]]:
        """The values that each restricted column may have, by column."""
        columns: dict[str, Sequence[str | None] | None] = {
            "dataset": self.datasets,
            "label": self.labels,
            "image": self.images,
            "id": self.ids,
        }
        return {column: values for column, values in columns.items() if values is not None}


def _checked_values(name: str, values: Any) -> tuple[Any, ...] | None:
    """The distinct strings of one condition, in order."""
    if values is None:
        return None
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise ValueError(f"got {name}={values!r}; wanted a list. Type: {name}=[{values!r}]")
    for value in values:
        if not (isinstance(value, str) or (value is None and name == "labels")):
            raise ValueError(f"got {value!r} in {name}; wanted strings")
    # An empty `not_images` excludes nothing, which is fine; any other empty list excludes all rows.
    if not values and name != "not_images":
        raise ValueError(f"got {name}=[]: no row can match; leave it out for no condition")
    return tuple(dict.fromkeys(values)) or None
