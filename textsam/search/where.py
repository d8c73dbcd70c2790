"""Which rows of an index are meant: conditions that every engine translates for itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

__all__ = ["Where"]

_NAMES = ("datasets", "labels", "images", "not_images", "ids")


@dataclass(frozen=True, kw_only=True)
class Where:
    """Conditions on rows; a row is meant if it meets all of them. None stands for no condition.

    Attributes:
        datasets: Its data set is one of these.
        labels: Its label is one of these; `None` among them stands for "has no label".
        images: Its photo is one of these.
        not_images: Its photo is none of these, as for "others than my own photo".
        ids: Its id is one of these.
        min_area: At least so many pixels.
        max_area: At most so many pixels.
        min_aspect: Width / height of the box is at least this.
        max_aspect: Width / height of the box is at most this.

    Raises:
        ValueError: A string in place of a list of strings, an empty list, a bound that is no
            number, or a lower bound above the upper one.
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
        """Turn lists into tuples and refuse what can match nothing."""
        for name in _NAMES:
            object.__setattr__(self, name, _names(name, getattr(self, name)))
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
    def is_open(self) -> bool:
        """Whether every row is meant."""
        return all(getattr(self, field.name) is None for field in fields(self))

    @property
    def lists(self) -> dict[str, Sequence[str | None]]:
        """The columns that must hold one of some values, and these values."""
        columns: dict[str, Sequence[str | None] | None] = {
            "dataset": self.datasets,
            "label": self.labels,
            "image": self.images,
            "id": self.ids,
        }
        return {column: values for column, values in columns.items() if values is not None}


def _names(name: str, values: Any) -> tuple[Any, ...] | None:
    """The strings of a condition; None stays."""
    if values is None:
        return None
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise ValueError(f"got {name}={values!r}; wanted a list. Type: {name}=[{values!r}]")
    for value in values:
        if not (isinstance(value, str) or (value is None and name == "labels")):
            raise ValueError(f"got {value!r} in {name}; wanted strings")
    if not values and name != "not_images":
        raise ValueError(f"got {name}=[]: no row can match; leave it out for no condition")
    return tuple(dict.fromkeys(values)) or None
