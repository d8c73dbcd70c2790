"""Photos of a data set on their way into an index; nothing here imports a network."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from textsam.values.rle import RLE


@dataclass(frozen=True, kw_only=True)
class DataMask:
    """A mask that the data set brings along; the label is None if the data set has none."""

    rle: RLE
    label: str | None = None


@dataclass(frozen=True, kw_only=True)
class DataPhoto:
    """One photo, still encoded, with the masks of its data set.

    Attributes:
        dataset: Name of the collection.
        image: Id or URI with which it is found again; unique in the collection.
        encoded: The bytes of the image file, or its path.
        masks: Masks of the upright photo's size; empty ones are skipped.
    """

    dataset: str
    image: str
    encoded: bytes | Path
    masks: tuple[DataMask, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PhotoRows:
    """What was done with one photo."""

    image: str  # id or URI
    masks: int = 0  # embedded
    kept: int = 0  # in the index already
    error: str | None = None  # why the photo was skipped, one line
    # The rows of its new masks, an Arrow table of `make_table`; None without new masks.
    table: Any = field(default=None, repr=False)


class PhotoSource(Protocol):
    """A data set, read row by row, by several processes if needed.

    It is copied to the workers, so it must survive pickling: it opens files when it reads them.
    """

    @property
    def total(self) -> int | None:
        """Number of photos; None for a stream, whose length is not known."""

    @property
    def has_masks(self) -> bool:
        """Whether its photos come with masks."""

    def rows(self) -> Iterator[Any]:
        """Small values that can be pickled and that `photo` takes, always in the same order."""

    def name(self, row: Any, /) -> str:
        """What to call a row that cannot be opened."""

    def photo(self, row: Any, /) -> DataPhoto:
        """The photo of a row.

        Raises:
            ValueError: The photo is broken; `ImageError` is one, too.
            OSError: The photo cannot be read.
        """


class ListedPhotos:
    """A `PhotoSource` of a list of photos."""

    def __init__(self, photos: Sequence[DataPhoto]) -> None:
        self._photos = list(photos)
        self.total = len(self._photos)
        self.has_masks = any(photo.masks for photo in self._photos)

    def rows(self) -> Iterator[int]:
        """Positions in the list."""
        return iter(range(self.total))

    def name(self, row: int, /) -> str:
        """Id or URI of the photo."""
        return self._photos[row].image

    def photo(self, row: int, /) -> DataPhoto:
        """The photo at a position."""
        return self._photos[row]


def batches(rows: Iterator[Any], size: int) -> Iterator[list[Any]]:
    """Lists of `size` rows; the last one may be shorter."""
    # itertools.batched exists from Python 3.12 on, and gives tuples.
    while batch := list(itertools.islice(rows, size)):
        yield batch
