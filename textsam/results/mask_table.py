"""What is known of the masks of one image, a column for each number."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from textsam.values.geometry import as_array
from textsam.values.judge import PhraseAnswer
from textsam.values.rle import RLE, merge_rles, rle_areas, rle_runs

__all__ = [
    "NUMBERS",
    "MaskTable",
    "checked_answers",
    "join_tables",
    "make_table",
    "merge_labels",
    "positions",
    "read_only",
]

# The columns of numbers, and what one of them is called on a `MaskResult`.
NUMBERS = {"scores": "score", "iou": "iou", "stability": "stability", "similarity": "similarity"}


@dataclass(frozen=True, eq=False, kw_only=True)
class MaskTable:
    """K masks of one image (H, W), each column as in `Segmentation`; made by `make_table`."""

    size: tuple[int, int]
    rles: tuple[RLE, ...]
    scores: NDArray[np.float32]
    iou: NDArray[np.float32]
    stability: NDArray[np.float32]
    similarity: NDArray[np.float32]
    labels: tuple[str | None, ...]
    presence: Mapping[str, float]

    @property
    def numbers(self) -> dict[str, NDArray[np.float32]]:
        """The columns of `NUMBERS`, each (K,) float32."""
        return {name: getattr(self, name) for name in NUMBERS}

    def __eq__(self, other: object) -> bool:
        """Whether everything is equal; two unknown numbers are."""
        if not isinstance(other, MaskTable):
            return NotImplemented
        return (
            (self.size, self.rles, self.labels) == (other.size, other.rles, other.labels)
            # As lists: the order of the phrases is part of a result, and dicts ignore it.
            and list(self.presence.items()) == list(other.presence.items())
            and all(
                np.array_equal(values, other.numbers[name], equal_nan=True)
                for name, values in self.numbers.items()
            )
        )

    def __hash__(self) -> int:
        """By masks and labels."""
        return hash((self.size, self.rles, self.labels))

    def __str__(self) -> str:
        """Size, labels with their best scores, and phrases without a mask."""
        parts = []
        for label in dict.fromkeys(self.labels):
            scores = [s for s, own in zip(self.scores, self.labels, strict=True) if own == label]
            best = [f"{score:.2f}" for score in scores[:3] if not np.isnan(score)]
            more = ", ..." if best and len(scores) > 3 else ""
            numbers = f" ({', '.join(best)}{more})" if best else ""
            name = "unlabelled" if label is None else repr(label)
            parts.append(f"{name} x{len(scores)}{numbers}")
        absent = [
            f"{phrase!r} ({presence:.2f})"
            for phrase, presence in self.presence.items()
            if phrase not in self.labels
        ]
        masks = ", ".join([*parts[:6], "..."] if len(parts) > 6 else parts) or "no masks"
        height, width = self.size
        return f"{height}x{width}: {masks}" + (f"; no {', '.join(absent)}" if absent else "")

    def take(self, chosen: Iterable[int]) -> MaskTable:
        """The masks at some positions, in that order; all presences stay."""
        index = list(chosen)
        return MaskTable(
            size=self.size,
            rles=tuple(self.rles[i] for i in index),
            labels=tuple(self.labels[i] for i in index),
            presence=self.presence,
            **{name: read_only(values[index]) for name, values in self.numbers.items()},
        )

    def label_map(self, *, by: Literal["mask", "label"]) -> NDArray[np.int32]:
        """Number the pixels; see `Segmentation.label_map`."""
        names = self.names()
        if by == "label" and None in self.labels:
            raise ValueError('a mask has no label; number the masks instead: by="mask"')
        height, width = self.size
        numbers = np.zeros(height * width, dtype=np.int32)  # column by column, as in the codes
        # Large masks first, so that smaller ones are painted over them.
        for index in np.argsort(-rle_areas(self.rles), kind="stable").tolist():
            label = self.labels[index]
            number = index if by == "mask" or label is None else names.index(label)
            ends = np.cumsum(rle_runs(self.rles[index])).tolist()
            for start, end in zip(ends[::2], ends[1::2], strict=False):
                numbers[start:end] = number + 1
        return np.ascontiguousarray(numbers.reshape(width, height).T)

    def names(self) -> list[str]:
        """Phrases in the order asked for, then labels that were not asked for, each once."""
        labels = [label for label in self.labels if label is not None]
        return list(dict.fromkeys([*self.presence, *labels]))


def make_table(
    size: tuple[int, int],
    rles: Iterable[RLE],
    *,
    labels: Sequence[str | None] | None = None,
    presence: Mapping[str, float] | None = None,
    **numbers: ArrayLike | None,
) -> MaskTable:
    """Check and collect columns; None stands for unknown. A ValueError for what does not fit."""
    masks = tuple(rles)
    size = merge_rles((), size).size  # an empty mask of that size: checks it and makes it integers
    for index, rle in enumerate(masks):
        if rle.size != size:
            raise ValueError(f"mask {index} has size {rle.size}; wanted {size} (height, width)")
    names = (None,) * len(masks) if labels is None else tuple(labels)
    # A string is a sequence of strings: "wheel" would be five labels.
    if isinstance(labels, str) or any(not isinstance(name, str | None) for name in names):
        raise ValueError(f"got labels {labels!r}; wanted a list with a str or None per mask")
    names = tuple(name if name is None else str(name) for name in names)  # of numpy's text, too
    if len(names) != len(masks):
        raise ValueError(f"got {len(names)} labels for {len(masks)} masks; wanted one per mask")
    presences = {str(key): float(value) for key, value in (presence or {}).items()}
    for phrase, value in presences.items():
        if not 0 <= value <= 1:
            raise ValueError(f"got presence {value} of {phrase!r}; wanted a number from 0 to 1")
    return MaskTable(
        size=size,
        rles=masks,
        labels=names,
        presence=presences,
        **{name: _column(name, numbers.pop(name, None), len(masks)) for name in NUMBERS},
        **numbers,  # type: ignore[arg-type]  # raises a TypeError for an unknown name
    )


def join_tables(parts: Sequence[MaskTable]) -> MaskTable:
    """The masks of several tables, in order; of two presences of a phrase the higher stays."""
    sizes = sorted({part.size for part in parts})
    if len(sizes) != 1:
        raise ValueError(
            f"got {len(parts)} results of sizes {sizes}; wanted one or more results of one image"
        )
    presence: dict[str, float] = {}
    for part in parts:  # a dict keeps the order in which phrases come first
        for phrase, value in part.presence.items():
            presence[phrase] = max(value, presence.get(phrase, 0.0))
    return make_table(
        sizes[0],
        [rle for part in parts for rle in part.rles],
        labels=[label for part in parts for label in part.labels],
        presence=presence,
        **{name: np.concatenate([part.numbers[name] for part in parts]) for name in NUMBERS},
    )


def merge_labels(table: MaskTable) -> MaskTable:
    """One mask per label: the union of its masks and their highest score; the rest is unknown."""
    groups: dict[str | None, list[int]] = {}
    for index, label in enumerate(table.labels):
        groups.setdefault(label, []).append(index)
    known = [[s for s in table.scores[g].tolist() if not math.isnan(s)] for g in groups.values()]
    return make_table(
        table.size,
        [merge_rles([table.rles[i] for i in g], table.size) for g in groups.values()],
        scores=[max(scores, default=math.nan) for scores in known],
        labels=list(groups),
        presence=table.presence,
    )


def checked_answers(
    answers: Iterable[PhraseAnswer], size: tuple[int, int]
) -> tuple[PhraseAnswer, ...]:
    """The answers, if all their masks belong to an image (H, W)."""
    checked = tuple(answers)
    for answer in checked:
        for candidate in answer.candidates:
            if candidate.rle.size != size:
                raise ValueError(
                    f"got an answer about {answer.phrase!r} with a mask of {candidate.rle.size}; "
                    f"wanted {size} (height, width), the size of the result"
                )
    return checked


def positions(key: NDArray[Any], count: int) -> list[int]:
    """Positions that a bool array (K,) or an integer array selects, or an IndexError."""
    if key.size == 0 and key.dtype != np.bool_:
        key = key.astype(np.int64)  # an empty list has dtype float64
    if key.ndim != 1 or key.dtype.kind not in "bui":
        raise IndexError(
            f"got an index of {key.dtype} and shape {key.shape}; wanted an integer, a slice, a "
            "label, integers (n,) or bools (K,)"
        )
    if key.dtype == np.bool_:
        if len(key) != count:
            raise IndexError(f"got {len(key)} bools for {count} masks; wanted one per mask")
        return [int(index) for index in np.flatnonzero(key)]
    outside = [int(index) for index in key if not -count <= index < count]
    if outside:
        raise IndexError(f"got position {outside[0]}; there are {count} masks")
    return [int(index) for index in key]


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """The array itself, made read-only."""
    array.flags.writeable = False
    return array


def _column(name: str, values: ArrayLike | None, count: int) -> NDArray[np.float32]:
    """A read-only copy (K,) float32; NaN for None."""
    if values is None:
        return read_only(np.full(count, np.nan, dtype=np.float32))
    array = np.array(as_array(values), dtype=np.float32)
    if array.shape != (count,):
        raise ValueError(f"got {name} of shape {array.shape}; wanted ({count},), one per mask")
    if np.isinf(array).any():
        raise ValueError(f"got {name} {array}; wanted finite numbers, or NaN for unknown")
    return read_only(array)
