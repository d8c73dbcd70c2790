"""What is known of the masks of one image: one mask (`MaskResult`), or column by column."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from textsam.values.geometry import is_tensor
from textsam.values.rle import RLE, decode_rle, merge_rles, rle_area, rle_areas, rle_box, rle_runs

__all__ = [
    "Columns",
    "MaskResult",
    "as_array",
    "frozen",
    "join_columns",
    "make_columns",
    "merge_labels",
    "positions",
]


@dataclass(frozen=True)
class MaskResult:
    """One mask and what is known of it.

    Attributes:
        rle: The mask, run-length coded.
        label: The phrase it answers; None for a mask from points, a box, or everything.
        score: Probability that the label describes the mask; NaN if unknown.
        iou: Predicted IoU of the mask; NaN if unknown.
        stability: Stability score of the mask; NaN if unknown.
        image: (H, W, 3) uint8 RGB, read-only, the photo it belongs to, so that the mask can be an
            example for another photo; None if it is not known. Referred to, not copied, and not
            compared.
    """

    rle: RLE
    label: str | None = None
    score: float = math.nan
    iou: float = math.nan
    stability: float = math.nan
    image: NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """(H, W) bool, decoded at the first use; read-only."""
        return frozen(decode_rle(self.rle))

    @property
    def box(self) -> NDArray[np.float32]:
        """(4,) float32 half-open x0, y0, x1, y1, original pixels; zeros for an empty mask."""
        return frozen(rle_box(self.rle).astype(np.float32))

    @property
    def area(self) -> int:
        """Number of pixels."""
        return rle_area(self.rle)

    def __repr__(self) -> str:
        """Label, numbers that are known, area and box; not the run-length code."""
        parts = [repr(self.label)] if self.label is not None else []
        for name in ("score", "iou", "stability"):
            value = getattr(self, name)
            if not math.isnan(value):
                parts.append(f"{name}={value:.2f}")
        box = ", ".join(str(side) for side in rle_box(self.rle))
        return f"<MaskResult {' '.join([*parts, f'area={self.area}'])} box=({box})>"


@dataclass(frozen=True, eq=False, kw_only=True)
class Columns:
    """K masks of one image and what is known of each; build it with `make_columns`.

    Attributes:
        size: (H, W), original pixels.
        rles: K masks.
        scores: (K,) float32, probability that the label describes the mask; NaN if unknown.
        iou: (K,) float32, predicted IoU; NaN if unknown.
        stability: (K,) float32, stability score; NaN if unknown.
        labels: K phrases; None where a mask has none.
        presence: Probability, 0 to 1, that each phrase that was asked for is in the image.
    """

    size: tuple[int, int]
    rles: tuple[RLE, ...]
    scores: NDArray[np.float32]
    iou: NDArray[np.float32]
    stability: NDArray[np.float32]
    labels: tuple[str | None, ...]
    presence: Mapping[str, float]

    def __eq__(self, other: object) -> bool:
        """Whether everything is the same; two unknown numbers are."""
        if not isinstance(other, Columns):
            return NotImplemented
        return (
            (self.size, self.rles, self.labels) == (other.size, other.rles, other.labels)
            and list(self.presence.items()) == list(other.presence.items())
            and np.array_equal(self.scores, other.scores, equal_nan=True)
            and np.array_equal(self.iou, other.iou, equal_nan=True)
            and np.array_equal(self.stability, other.stability, equal_nan=True)
        )

    def __hash__(self) -> int:
        """Of the masks and labels."""
        return hash((self.size, self.rles, self.labels))

    def __str__(self) -> str:
        """Size, labels with their best scores, and phrases that found nothing."""
        shown = []
        for label in dict.fromkeys(self.labels):
            scores = [s for s, own in zip(self.scores, self.labels, strict=True) if own == label]
            best = [f"{score:.2f}" for score in scores[:3] if not np.isnan(score)]
            more = ", ..." if best and len(scores) > 3 else ""
            numbers = f" ({', '.join(best)}{more})" if best else ""
            name = "unlabelled" if label is None else repr(label)
            shown.append(f"{name} x{len(scores)}{numbers}")
        absent = [
            f"{phrase!r} ({chance:.2f})"
            for phrase, chance in self.presence.items()
            if phrase not in self.labels
        ]
        found = ", ".join([*shown[:6], "..."] if len(shown) > 6 else shown) or "no masks"
        height, width = self.size
        return f"{height}x{width}: {found}" + (f"; no {', '.join(absent)}" if absent else "")

    def take(self, chosen: Iterable[int]) -> Columns:
        """The masks at some positions, in that order; all presences stay."""
        index = list(chosen)
        return Columns(
            size=self.size,
            rles=tuple(self.rles[i] for i in index),
            scores=frozen(self.scores[index]),
            iou=frozen(self.iou[index]),
            stability=frozen(self.stability[index]),
            labels=tuple(self.labels[i] for i in index),
            presence=self.presence,
        )

    def items(self, image: NDArray[np.uint8] | None = None) -> tuple[MaskResult, ...]:
        """The masks, one by one, each with the photo (H, W, 3) if it is given."""
        numbers = zip(self.scores, self.iou, self.stability, strict=True)
        return tuple(
            MaskResult(rle, label, float(score), float(iou), float(stability), image)
            for rle, label, (score, iou, stability) in zip(
                self.rles, self.labels, numbers, strict=True
            )
        )

    def label_map(self, *, by: Literal["mask", "label"]) -> NDArray[np.int32]:
        """(H, W) int32: 0 for nothing, then masks, or labels in order of `names`, from 1.

        Where masks overlap, the smaller one is seen.

        Raises:
            ValueError: By label, and a mask has none.
        """
        names = self.names()
        if by == "label" and None in self.labels:
            raise ValueError('a mask has no label; number the masks instead: by="mask"')
        height, width = self.size
        numbers = np.zeros(height * width, dtype=np.int32)  # down the columns, as the codes go
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


def make_columns(
    size: tuple[int, int],
    rles: Iterable[RLE],
    *,
    scores: ArrayLike | None = None,
    iou: ArrayLike | None = None,
    stability: ArrayLike | None = None,
    labels: Sequence[str | None] | None = None,
    presence: Mapping[str, float] | None = None,
) -> Columns:
    """Check and collect columns; see `Columns` for what they are. None stands for unknown.

    Raises:
        ValueError: Sizes or lengths that do not fit, infinite numbers, labels that are no text, a
            presence outside 0 to 1.
    """
    masks = tuple(rles)
    size = merge_rles((), size).size  # an empty mask of that size: checks it and makes it integers
    for index, rle in enumerate(masks):
        if rle.size != size:
            raise ValueError(f"mask {index} has size {rle.size}; wanted {size} (height, width)")
    names = (None,) * len(masks) if labels is None else tuple(labels)
    if isinstance(labels, str) or any(not isinstance(name, str | None) for name in names):
        raise ValueError(f"got labels {labels!r}; wanted a list with a str or None per mask")
    if len(names) != len(masks):
        raise ValueError(f"got {len(names)} labels for {len(masks)} masks; wanted one per mask")
    chances = {str(key): float(value) for key, value in (presence or {}).items()}
    for phrase, chance in chances.items():
        if not 0 <= chance <= 1:
            raise ValueError(f"got presence {chance} of {phrase!r}; wanted a number from 0 to 1")
    return Columns(
        size=size,
        rles=masks,
        scores=_numbers("scores", scores, len(masks)),
        iou=_numbers("iou", iou, len(masks)),
        stability=_numbers("stability", stability, len(masks)),
        labels=names,
        presence=chances,
    )


def join_columns(parts: Sequence[Columns]) -> Columns:
    """Masks of several, in order; of two presences of a phrase the higher stays.

    Raises:
        ValueError: None given, or of images of different sizes.
    """
    sizes = sorted({part.size for part in parts})
    if len(sizes) != 1:
        raise ValueError(
            f"got {len(parts)} results of sizes {sizes}; wanted one or more results of one image"
        )
    presence: dict[str, float] = {}
    for part in parts:
        for phrase, chance in part.presence.items():
            presence[phrase] = max(chance, presence.get(phrase, 0.0))
    return make_columns(
        sizes[0],
        [rle for part in parts for rle in part.rles],
        scores=np.concatenate([part.scores for part in parts]),
        iou=np.concatenate([part.iou for part in parts]),
        stability=np.concatenate([part.stability for part in parts]),
        labels=[label for part in parts for label in part.labels],
        presence=presence,
    )


def merge_labels(columns: Columns) -> Columns:
    """One mask per label: the union of its masks, their highest score; the rest is unknown."""
    groups: dict[str | None, list[int]] = {}
    for index, label in enumerate(columns.labels):
        groups.setdefault(label, []).append(index)
    known = [[s for s in columns.scores[g].tolist() if not math.isnan(s)] for g in groups.values()]
    return make_columns(
        columns.size,
        [merge_rles([columns.rles[i] for i in g], columns.size) for g in groups.values()],
        scores=[max(scores, default=math.nan) for scores in known],
        labels=list(groups),
        presence=columns.presence,
    )


def positions(key: NDArray[Any], count: int) -> list[int]:
    """Positions that a bool array (K,) or an integer array selects.

    Raises:
        IndexError: Another shape or dtype, or a position outside.
    """
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


def as_array(values: Any) -> NDArray[Any]:
    """A numpy array of a list, an array, or a tensor on any device."""
    if is_tensor(values):
        detached = values.detach().cpu()
        # numpy has no bfloat16.
        values = (detached.float() if detached.is_floating_point() else detached).numpy()
    array: NDArray[Any] = np.asarray(values)
    return array


def frozen(array: NDArray[Any]) -> NDArray[Any]:
    """The array, made read-only."""
    array.flags.writeable = False
    return array


def _numbers(name: str, values: ArrayLike | None, count: int) -> NDArray[np.float32]:
    """A read-only copy (K,) float32; NaN for None."""
    if values is None:
        return frozen(np.full(count, np.nan, dtype=np.float32))
    array = np.array(as_array(values), dtype=np.float32)
    if array.shape != (count,):
        raise ValueError(f"got {name} of shape {array.shape}; wanted ({count},), one per mask")
    if np.isinf(array).any():
        raise ValueError(f"got {name} {array}; wanted finite numbers, or NaN for unknown")
    return frozen(array)
